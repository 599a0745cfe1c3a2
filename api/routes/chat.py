"""Chat completions: a cited answer, at once or as a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.dependencies import OpenBackend, new_router, requires
from api.errors import as_rag_error, error_body
from api.routes.context import named_stores, to_ask
from api.schemas.chat import (
    Annotation,
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    CitationObject,
    Grounds,
    RemovedMarkerObject,
    UrlCitation,
    UsageObject,
    plain_messages,
)
from api.sse import DONE, EventStream, event
from rag.answer import Answer, TextDelta
from rag.ask import Prepared, answer, prepare
from rag.backend import Backend
from rag.models import Sampling

Pieces = AsyncGenerator[TextDelta | Answer, None]
Result = TypeVar("Result")

router = new_router(tags=["chat"])


@dataclass(frozen=True)
class _Frame:
    """What all parts of one answer repeat."""

    id: str
    created: int
    model: str
    base_url: str
    """Of this server, with a closing slash."""


@router.post("/v1/chat/completions", response_model=ChatCompletion, dependencies=[requires("query")])
async def create_chat_completion(
    body: ChatRequest, request: Request, backend: OpenBackend
) -> Response | ChatCompletion:
    """Answer the last message from the stores, every claim with its source."""
    prepared = await anyio.to_thread.run_sync(_prepare, backend, body)
    frame = _Frame(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), prepared.alias.name, str(request.base_url))
    pieces = cast(Pieces, answer(backend, prepared))
    if not body.stream:
        return _completion(frame, await _unless_gone(request, _whole(pieces)))
    usage = body.stream_options is not None and body.stream_options.include_usage is True
    # The first piece comes before the status line: what fails early fails with its own status.
    try:
        first = await _unless_gone(request, anext(pieces))
    except BaseException:
        await pieces.aclose()
        raise
    return EventStream(_events(frame, first, pieces, with_usage=usage), pieces)


def _prepare(backend: Backend, body: ChatRequest) -> Prepared:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    sampling = Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        stop=stop,
    )
    stores = named_stores(backend, body.vector_store_ids)
    return prepare(backend, to_ask(body, stores, plain_messages(body.messages), sampling))


async def _whole(pieces: Pieces) -> Answer:
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
    raise AssertionError("the stream ended without its answer")


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """The result of some work, which is cancelled when the caller goes away. Raises ClientDisconnect then."""
    results: list[Result] = []
    faults: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def do() -> None:
            try:
                results.append(await work)
            except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                faults.append(error)
            group.cancel_scope.cancel()

        group.start_soon(do)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()
    if faults:
        raise faults[0]
    if not results:
        raise ClientDisconnect()
    return results[0]


async def _events(
    frame: _Frame, first: TextDelta | Answer, pieces: Pieces, *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    yield _chunk(frame, {"role": "assistant", "content": "", "refusal": None}, with_usage)
    try:
        piece = first
        while isinstance(piece, TextDelta):
            yield _chunk(frame, {"content": piece.text}, with_usage)
            piece = await anext(pieces)
    except Exception as error:  # noqa: BLE001 - the status line is long gone: the stream itself tells
        yield event(error_body(as_rag_error(error)))
        return
    annotations = [annotation.model_dump() for annotation in _annotations(frame, piece)]
    grounds = _grounds(piece).model_dump()
    yield _chunk(frame, {"annotations": annotations}, with_usage, piece.finish_reason, **grounds)
    if with_usage:
        yield event({**_head(frame), "choices": [], "usage": _usage(piece).model_dump(), **grounds})
    yield DONE


def _chunk(
    frame: _Frame, delta: dict[str, Any], with_usage: bool, finish_reason: str | None = None, **extras: Any
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    usage = {"usage": None} if with_usage else {}
    return event({**_head(frame), "choices": [choice], **usage, **extras})


def _head(frame: _Frame) -> dict[str, Any]:
    return {"id": frame.id, "object": "chat.completion.chunk", "created": frame.created, "model": frame.model}


def _completion(frame: _Frame, said: Answer) -> ChatCompletion:
    message = AssistantMessage(content=said.text, annotations=_annotations(frame, said))
    return ChatCompletion(
        id=frame.id,
        created=frame.created,
        model=frame.model,
        choices=[Choice(message=message, finish_reason=said.finish_reason)],
        usage=_usage(said),
        **dict(_grounds(said)),
    )


def _grounds(said: Answer) -> Grounds:
    return Grounds(
        citations=[CitationObject.model_validate(citation) for citation in said.citations],
        grounded=said.grounded,
        removed_markers=[RemovedMarkerObject.model_validate(marker) for marker in said.removed_markers],
    )


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


def _usage(said: Answer) -> UsageObject:
    prompt, completion = said.usage.prompt_tokens, said.usage.completion_tokens
    return UsageObject(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
