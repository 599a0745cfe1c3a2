"""Chat completions: a cited answer, at once or as a stream; and those that were stored."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import Query, Request
from starlette.responses import JSONResponse, Response

from api.answering import Pieces, begin, grounds
from api.dependencies import OpenBackend, new_router, requires
from api.errors import as_rag_error, error_body
from api.routes.context import named_stores, to_ask, user_of
from api.schemas.chat import (
    Annotation,
    AssistantMessage,
    ChatCompletion,
    ChatCompletionList,
    ChatRequest,
    Choice,
    DeletedCompletion,
    GroundednessObject,
    Grounds,
    UrlCitation,
    plain_messages,
)
from api.schemas.common import Cursor, UsageObject
from api.sse import DONE, event
from rag import listing
from rag.ab_tests import assigned
from rag.answer import Answer, TextDelta
from rag.ask import Ask, Prepared
from rag.backend import Backend
from rag.catalog.records import PageRequest
from rag.models import Sampling
from rag.traces import groundedness_of

router = new_router(tags=["chat"])

METADATA = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "schema": {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, {"type": "null"}]},
}
"""How `metadata[KEY]=VALUE` is described; a framework's parameter has one name."""


@dataclass(frozen=True)
class _Frame:
    """What all parts of one answer repeat."""

    id: str
    created: int
    base_url: str
    """Of this server, with a closing slash."""
    body: ChatRequest
    prepared: Prepared

    @property
    def model(self) -> str:
        return self.prepared.alias.name

    @property
    def with_usage(self) -> bool:
        options = self.body.stream_options
        return options is not None and options.include_usage is True


@router.post("/v1/chat/completions", response_model=ChatCompletion, dependencies=[requires("query")])
async def create_chat_completion(body: ChatRequest, request: Request, backend: OpenBackend) -> Response:
    """Answer the last message from the stores, every claim with its source."""
    turn = await begin(request, backend, lambda: _ask(backend, body))
    frame = _Frame(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), str(request.base_url), body, turn.prepared)
    if body.stream:
        return await turn.stream(request, lambda: _opening(frame), lambda pieces: _events(backend, frame, pieces))
    completion = await _completion(frame, await turn.whole(request))
    await _store(backend, frame, completion)
    return JSONResponse(completion.model_dump())


@router.get(
    "/v1/chat/completions",
    response_model=ChatCompletionList,
    dependencies=[requires("query")],
    openapi_extra={"parameters": [METADATA]},
)
def list_chat_completions(
    request: Request,
    backend: OpenBackend,
    model: Cursor = None,
    after: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Literal["asc", "desc"], Query()] = "asc",
) -> Response:
    """The completions that were made with `store`. `metadata[KEY]=VALUE` leaves out those that say otherwise."""
    wanted = {
        name.removeprefix("metadata[")[:-1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    found = listing.stored_answers(backend, "chat.completion", PageRequest(limit, order, after), model)
    bodies = [row.body for row in found.rows if wanted.items() <= row.metadata.items()]
    ids = [row.public_id for row in found.rows]
    page = {"first_id": ids[0] if ids else "", "last_id": ids[-1] if ids else "", "has_more": found.has_more}
    return JSONResponse({"object": "list", "data": bodies, **page})


@router.get("/v1/chat/completions/{completion_id}", response_model=ChatCompletion, dependencies=[requires("query")])
def get_chat_completion(completion_id: str, backend: OpenBackend) -> Response:
    """One completion that was made with `store`."""
    return JSONResponse(listing.stored_answer(backend, "chat.completion", completion_id).body)


@router.delete("/v1/chat/completions/{completion_id}", dependencies=[requires("query")])
def delete_chat_completion(completion_id: str, backend: OpenBackend) -> DeletedCompletion:
    """Forget a stored completion."""
    listing.forget_answer(backend, "chat.completion", completion_id)
    return DeletedCompletion(id=completion_id)


def _ask(backend: Backend, body: ChatRequest) -> Ask:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    sampling = Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        stop=stop,
        response_format=body.wanted_format(),
    )
    stores = named_stores(backend, body.vector_store_ids, body.model)
    ask = to_ask(body, stores, plain_messages(body.messages), sampling, "chat.completion")
    return assigned(backend, ask, user_of(backend.caller, body.safety_identifier, body.user))


async def _store(backend: Backend, frame: _Frame, completion: ChatCompletion) -> None:
    if not frame.body.store:
        return
    items = [message.model_dump(exclude_none=True) for message in frame.body.messages]
    await anyio.to_thread.run_sync(
        listing.keep_answer, backend, frame.prepared, "chat.completion", completion.model_dump(), items
    )


def _opening(frame: _Frame) -> bytes:
    return _chunk(frame, {"role": "assistant", "content": "", "refusal": None}, frame.with_usage)


async def _events(backend: Backend, frame: _Frame, pieces: Pieces) -> AsyncGenerator[bytes, None]:
    with_usage = frame.with_usage
    try:
        async for piece in pieces:
            if isinstance(piece, TextDelta):
                yield _chunk(frame, {"content": piece.text}, with_usage)
                continue
            completion = await _completion(frame, piece)
            await _store(backend, frame, completion)
    except Exception as error:  # noqa: BLE001 - the status line is long gone: the stream itself tells
        yield event(error_body(as_rag_error(error)))
        return
    whole = completion.model_dump()
    choice = whole["choices"][0]
    extras = {name: whole[name] for name in (*Grounds.model_fields, "groundedness") if name in whole}
    annotations = {"annotations": choice["message"]["annotations"]}
    yield _chunk(frame, annotations, with_usage, choice["finish_reason"], **extras)
    if with_usage:
        yield event({**_head(frame), "choices": [], "usage": whole["usage"], **extras})
    yield DONE


def _chunk(
    frame: _Frame, delta: dict[str, Any], with_usage: bool, finish_reason: str | None = None, **extras: Any
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    usage = {"usage": None} if with_usage else {}
    return event({**_head(frame), "choices": [choice], **usage, **extras})


def _head(frame: _Frame) -> dict[str, Any]:
    return {"id": frame.id, "object": "chat.completion.chunk", "created": frame.created, "model": frame.model}


async def _completion(frame: _Frame, said: Answer) -> ChatCompletion:
    message = AssistantMessage(content=said.text, refusal=None, annotations=_annotations(frame, said))
    return ChatCompletion(
        id=frame.id,
        created=frame.created,
        model=frame.model,
        choices=[Choice(message=message, finish_reason=said.finish_reason)],
        usage=UsageObject.of(said.usage),
        metadata=frame.body.metadata,
        groundedness=await _groundedness(frame, said) if frame.body.groundedness else None,
        **dict(grounds(frame.prepared, said)),
    )


async def _groundedness(frame: _Frame, said: Answer) -> GroundednessObject | None:
    found = await anyio.to_thread.run_sync(partial(groundedness_of, frame.prepared, said, words=True))
    return None if found is None else GroundednessObject.model_validate(found)


def _annotations(frame: _Frame, said: Answer) -> list[Annotation]:
    return [
        Annotation(
            url_citation=UrlCitation(
                start_index=citation.marker_start,
                end_index=citation.marker_end,
                url=f"{frame.base_url}v1/files/{citation.file_id}/content",
                title=citation.title or citation.filename,
            )
        )
        for citation in said.citations
    ]
