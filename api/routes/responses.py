"""Responses: a cited answer in OpenAI's newer shape, at once or as a stream, kept so that a conversation can go on."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import Query, Request
from starlette.responses import JSONResponse, Response

from api.answering import Pieces, begin, grounds
from api.dependencies import OpenBackend, new_router, requires
from api.errors import as_rag_error
from api.routes.context import named_stores, user_of
from api.schemas.common import Cursor, NotNull, Shown
from api.schemas.responses import (
    RESULTS,
    DeletedResponse,
    FileCitation,
    FileSearchCall,
    FileSearchRanking,
    Includable,
    IncompleteDetails,
    InputItem,
    InputItemList,
    OutputMessage,
    OutputText,
    ResponseErrorObject,
    ResponseObject,
    ResponseRequest,
    ResponseUsage,
    SearchResult,
    require_includes,
    with_grounds,
)
from api.schemas.search import Retrieving, search_options
from api.sse import event
from indexes.errors import ChangeRequest, RagError, TryLater
from rag import listing
from rag.ab_tests import assigned
from rag.answer import Answer, TextDelta
from rag.ask import Ask, Prepared
from rag.backend import Backend
from rag.catalog.responses import StoredResponse
from rag.citations import Citation
from rag.context import Message
from rag.models import Sampling
from rag.prompt import load_prompt
from rag.retrieve import SearchOptions

router = new_router(tags=["responses"])

OUR_NAMES = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text"}
"""What fields of a chat request are called here."""
Include = Annotated[NotNull[list[Annotated[str, Shown(Includable)]]], Query(max_length=16)]
Bracketed = Annotated[list[str] | None, Query(alias="include[]", max_length=16, include_in_schema=False)]
"""As the official clients write a list in a query."""


@dataclass(frozen=True)
class _Asked:
    """A request, what it answers as items, and the response that it goes on from."""

    body: ResponseRequest
    items: Sequence[dict[str, Any]]
    previous: StoredResponse | None
    id: str
    created: int


@router.post("/v1/responses", response_model=ResponseObject, dependencies=[requires("query")])
async def create_response(body: ResponseRequest, request: Request, backend: OpenBackend) -> Response:
    """Answer the last message of the input from the stores, every claim with its source."""
    previous = None
    if body.previous_response_id is not None:
        previous = await anyio.to_thread.run_sync(_previous, backend, body.previous_response_id)
    asked = _Asked(body, _items(body.input), previous, f"resp_{secrets.token_hex(24)}", int(time.time()))
    try:
        turn = await begin(request, backend, lambda: _ask(backend, asked))
        writer = _Writer(backend, asked, turn.prepared)
        if body.stream:
            return await turn.stream(request, writer.opening, writer.events)
        return JSONResponse(await writer.finished(await turn.whole(request)))
    except ChangeRequest as error:
        error.param = OUR_NAMES.get(error.param or "", error.param)
        raise


@router.get("/v1/responses/{response_id}", response_model=ResponseObject, dependencies=[requires("query")])
def get_response(
    response_id: str, backend: OpenBackend, include: Include = None, included: Bracketed = None
) -> Response:
    """A stored response."""
    stored = listing.stored_answer(backend, "response", response_id)
    return JSONResponse(_without_results(stored.body, _includes(include, included)))


@router.delete("/v1/responses/{response_id}", dependencies=[requires("query")])
def delete_response(response_id: str, backend: OpenBackend) -> DeletedResponse:
    """Forget a stored response. A conversation that went on from it begins after it from now on."""
    listing.forget_answer(backend, "response", response_id)
    return DeletedResponse(id=response_id)


@router.post("/v1/responses/{response_id}/cancel", response_model=ResponseObject, dependencies=[requires("query")])
def cancel_response(response_id: str, backend: OpenBackend) -> Response:
    """A stored response as it is. Nothing goes on behind it: a response ends with its request, and whoever closes the
    connection cancels it."""
    return JSONResponse(_without_results(listing.stored_answer(backend, "response", response_id).body, ()))


@router.get("/v1/responses/{response_id}/input_items", dependencies=[requires("query")])
def list_input_items(
    response_id: str,
    backend: OpenBackend,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    after: Cursor = None,
    include: Include = None,
    included: Bracketed = None,
) -> InputItemList:
    """What a stored response answers; the conversation that it goes on from is asked for by its own responses."""
    _includes(include, included)
    items = [dict(item) for item in listing.stored_answer(backend, "response", response_id).input]
    items = items if order == "asc" else items[::-1]
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise ChangeRequest(f"The cursor {after!r} names nothing in this list.", code="bad_cursor", param="after")
    start = 0 if after is None else ids.index(after) + 1
    page = ids[start : start + limit]
    return InputItemList(
        data=items[start : start + limit],
        first_id=page[0] if page else "",
        last_id=page[-1] if page else "",
        has_more=start + limit < len(ids),
    )


def _includes(*given: list[str] | None) -> list[str]:
    names = [name for names in given for name in names or ()]
    try:
        return require_includes(names) or []
    except ValueError as error:
        raise ChangeRequest(str(error), code="unsupported_parameter", param="include") from error


def _without_results(body: Any, include: Sequence[str]) -> dict[str, Any]:
    """A response as it is sent to who does not ask for the results of its search."""
    if RESULTS in include:
        return dict(body)
    output = [{**item, "results": None} if item["type"] == "file_search_call" else item for item in body["output"]]
    return {**body, "output": output}


# ---- what is asked ---------------------------------------------------------------------------------------------------


def _previous(backend: Backend, response_id: str) -> StoredResponse:
    try:
        return listing.stored_answer(backend, "response", response_id)
    except RagError as error:
        if error.code == "response_not_found":
            error.param, error.code = "previous_response_id", "previous_response_not_found"
        raise


def _ask(backend: Backend, asked: _Asked) -> Ask:
    body, tool = asked.body, asked.body.tool
    earlier = listing.stored_conversation(backend, asked.previous) if asked.previous else []
    said = [message for stored in earlier for message in (*_messages(stored.input), *_messages(stored.body["output"]))]
    instructions = [{"role": "system", "content": body.instructions}] if body.instructions else []
    ask = Ask(
        stores=tuple(named_stores(backend, tool.vector_store_ids if tool else None, body.model)),
        messages=(*instructions, *said, *_messages(asked.items)),
        kind="response",
        truncation=body.truncation or "disabled",
        model=body.model,
        prompt=_prompt(backend, body),
        search=_search(body),
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_output_tokens,
            response_format=body.response_format(),
        ),
    )
    return assigned(backend, ask, user_of(backend.caller, body.safety_identifier, body.user))


def _search(body: ResponseRequest) -> SearchOptions:
    tool = body.tool
    if tool is None:
        return SearchOptions(generation=body.generation)
    ranking = tool.ranking_options or FileSearchRanking()
    how = Retrieving(filters=tool.filters, max_num_results=tool.max_num_results, generation=body.generation)
    if weights := ranking.hybrid_search:
        share = weights.embedding_weight / (weights.embedding_weight + weights.text_weight)
        how = how.model_copy(update={"fusion": "rrf", "dense_weight": share})
    return search_options(how, ranking.score_threshold)


def _prompt(backend: Backend, body: ResponseRequest) -> str | None:
    if body.prompt is None:
        return None
    folder = backend.settings.prompts
    prompt = load_prompt(body.prompt.id, [folder] if folder else [])
    if body.prompt.version not in (None, prompt.version):
        raise ChangeRequest(
            f"The prompt {prompt.id!r} is at version {prompt.version!r} here, not {body.prompt.version!r}.",
            code="unknown_prompt",
            param="prompt",
        )
    return body.prompt.id


def _items(given: str | list[InputItem]) -> list[dict[str, Any]]:
    """The input as items with ids, in the shape in which they are asked for again. An id is a cursor, so what comes
    with one a second time gets another."""
    if isinstance(given, str):
        given = [InputItem(role="user", content=given)]
    taken: set[str | None] = set()
    items = []
    for item in given:
        items.append(_item(item.model_copy(update={"id": None}) if item.id in taken else item))
        taken.add(item.id)
    return items


def _item(item: InputItem) -> dict[str, Any]:
    if item.type == "file_search_call":
        call = FileSearchCall(id=item.id or f"fs_{secrets.token_hex(12)}", queries=item.queries or [])
        return call.model_dump()
    texts = [item.content] if isinstance(item.content, str) else [part.text for part in item.content]
    kind, extras = "input_text", dict[str, Any]()
    if item.role == "assistant":
        kind, extras = "output_text", {"annotations": [], "logprobs": []}
    return {
        "id": item.id or f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": item.role,
        "status": "completed",
        "content": [{"type": kind, "text": text, **extras} for text in texts],
    }


def _messages(items: Sequence[Any]) -> list[Message]:
    """The turns among some items, as the packer takes them."""
    return [
        {
            "role": "system" if item["role"] == "developer" else item["role"],
            "content": "\n".join(part["text"] for part in item["content"]),
        }
        for item in items
        if item["type"] == "message"
    ]


# ---- what is answered ------------------------------------------------------------------------------------------------


class _Writer:
    """One response, in the making and whole."""

    def __init__(self, backend: Backend, asked: _Asked, prepared: Prepared) -> None:
        self._backend, self._asked, self._prepared = backend, asked, prepared
        self._message_id = f"msg_{secrets.token_hex(24)}"
        self._call_id = f"fs_{secrets.token_hex(24)}"
        self._number = 0

    async def finished(self, said: Answer) -> dict[str, Any]:
        """The response once the answer is whole; it is stored by then."""
        return await self._stored(self._whole(said))

    async def events(self, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        """The response as it comes, after its opening. What is sent last is a response that is completed, incomplete or
        failed."""
        try:
            async for delta in pieces:
                if isinstance(delta, TextDelta):
                    for piece in self._delta(delta):
                        yield piece
                    continue
                whole = self._whole(delta)
                stored = await self._stored(whole)
        except Exception as error:  # noqa: BLE001 - the status line is long gone: the stream itself tells
            failed = self._failed(as_rag_error(error))
            yield self._event("response.failed", response=await self._stored_quietly(failed))
            return
        for piece in self._closing(whole):
            yield piece
        yield self._event(f"response.{whole.status}", response=stored)

    # Events

    def opening(self) -> bytes:
        """What comes before the first word."""
        begun = self._response("in_progress").model_dump()
        place = {"item_id": self._call_id, "output_index": 0}
        call = self._call().model_dump()
        part = OutputText(text="", annotations=[]).model_dump()
        message = OutputMessage(id=self._message_id, status="in_progress", content=[]).model_dump()
        searching = {**call, "status": "in_progress", "queries": [], "results": None}
        events = [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=searching),
            self._event("response.file_search_call.in_progress", **place),
            self._event("response.file_search_call.searching", **place),
            self._event("response.file_search_call.completed", **place),
            self._event("response.output_item.done", output_index=0, item=self._shown(call)),
            self._event("response.output_item.added", output_index=1, item=message),
            self._event("response.content_part.added", **self._place(), part=part),
        ]
        return b"".join(events)

    def _delta(self, delta: TextDelta) -> list[bytes]:
        pieces = [self._event("response.output_text.delta", **self._place(), delta=delta.text, logprobs=[])]
        for citation in delta.citations:
            annotation = _annotation(citation).model_dump()
            place = {**self._place(), "annotation_index": self._cited}
            pieces.append(self._event("response.output_text.annotation.added", **place, annotation=annotation))
            self._cited += 1
        return pieces

    _cited = 0

    def _closing(self, whole: ResponseObject) -> list[bytes]:
        message = whole.output[1].model_dump()
        (part,) = message["content"]
        return [
            self._event("response.output_text.done", **self._place(), text=part["text"], logprobs=[]),
            self._event("response.content_part.done", **self._place(), part=part),
            self._event("response.output_item.done", output_index=1, item=message),
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 1, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)

    # Responses

    def _whole(self, said: Answer) -> ResponseObject:
        cut = said.finish_reason == "length"
        part = OutputText(text=said.text, annotations=[_annotation(citation) for citation in said.citations])
        message = OutputMessage(id=self._message_id, status="incomplete" if cut else "completed", content=[part])
        prompt, completion = said.usage.prompt_tokens, said.usage.completion_tokens
        return with_grounds(
            self._response("incomplete" if cut else "completed"),
            grounds(self._prepared, said),
            completed_at=None if cut else int(time.time()),
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if cut else None,
            output=[self._call(), message],
            usage=ResponseUsage(input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion),
        )

    def _failed(self, error: RagError) -> ResponseObject:
        code: Any = "server_error" if isinstance(error, TryLater) else "invalid_prompt"
        if error.code in ("rate_limit_exceeded", "server_error"):
            code = error.code
        fault = ResponseErrorObject(code=code, message=error.message)
        return self._response("failed").model_copy(update={"error": fault, "output": [self._call()]})

    def _response(self, status: Any) -> ResponseObject:
        body, prepared = self._asked.body, self._prepared
        return ResponseObject(
            id=self._asked.id,
            created_at=self._asked.created,
            status=status,
            error=None,
            incomplete_details=None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=prepared.alias.name,
            output=[],
            parallel_tool_calls=body.parallel_tool_calls is not False,
            previous_response_id=body.previous_response_id,
            prompt_cache_key=body.prompt_cache_key,
            safety_identifier=body.safety_identifier,
            store=body.store is not False,
            temperature=prepared.sampling.temperature,
            text=body.text.model_dump(by_alias=True, exclude_none=True) if body.text else {"format": {"type": "text"}},
            tool_choice=body.tool_choice or "auto",
            tools=[tool.model_dump(exclude_none=True) for tool in body.tools or ()],
            top_p=prepared.sampling.top_p,
            truncation=body.truncation or "disabled",
            user=body.user,
            trace_id=prepared.trace_id,
        )

    def _call(self) -> FileSearchCall:
        """The search, with what it found: every candidate that is relevant enough, whether it was packed or not."""
        fates = {entry.chunk_id: entry.reason for entry in self._prepared.context.ledger.entries}
        results = [
            SearchResult(
                file_id=candidate.file_id,
                filename=candidate.filename,
                text=candidate.text,
                score=min(max(candidate.relevance, 0.0), 1.0),
                attributes=dict(candidate.attributes),
            )
            for candidate in self._prepared.retrieval.candidates
            if fates[candidate.chunk_id] != "below_threshold"
        ]
        return FileSearchCall(id=self._call_id, queries=[self._prepared.query], results=results)

    def _shown(self, call: dict[str, Any]) -> dict[str, Any]:
        return call if RESULTS in (self._asked.body.include or ()) else {**call, "results": None}

    # Keeping

    async def _stored(self, response: ResponseObject) -> dict[str, Any]:
        """The response as it is sent, after it was stored unless that is not wanted."""
        fields, asked = response.model_dump(), self._asked
        if response.store:
            await anyio.to_thread.run_sync(
                listing.keep_answer, self._backend, self._prepared, "response", fields, asked.items, asked.previous
            )
        return _without_results(fields, asked.body.include or ())

    async def _stored_quietly(self, response: ResponseObject) -> dict[str, Any]:
        """The same, where the failure that it tells of may be that nothing can be stored."""
        try:
            return await self._stored(response)
        except RagError:
            return _without_results(response.model_dump(), self._asked.body.include or ())


def _annotation(citation: Citation) -> FileCitation:
    return FileCitation(file_id=citation.file_id, filename=citation.filename, index=citation.marker_start)
