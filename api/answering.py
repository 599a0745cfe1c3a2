"""What chat and responses share: from a request to a checked answer, at once or as a stream. They differ in rendering.

Whatever fails before the first word of an answer has a status of its own, also in a stream: the first piece comes
before the status line. What fails later is told by the stream itself. A caller who goes away stops the work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.schemas.chat import CitationObject, Grounds, RemovedMarkerObject
from api.schemas.common import UsageObject
from api.sse import EventStream
from rag.answer import Answer, TextDelta
from rag.ask import Ask, Prepared, answer, prepare_with_model
from rag.backend import Backend

Pieces = AsyncGenerator[TextDelta | Answer, None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Turn:
    """One question on its way to an answer."""

    prepared: Prepared
    pieces: Pieces

    async def whole(self, request: Request) -> Answer:
        """The answer, once all of it is there."""
        return await unless_gone(request, _last(self.pieces))

    async def stream(
        self, request: Request, opening: Callable[[], bytes], events: Callable[[Pieces], AsyncGenerator[bytes, None]]
    ) -> EventStream:
        """The answer as it comes, rendered by `events`, after an `opening` that is made while the model thinks."""
        opened = cache(opening)
        try:
            first = await unless_gone(request, anext(self.pieces), meanwhile=opened)
        except BaseException:
            await self.pieces.aclose()
            raise
        pieces = _again(first, self.pieces)
        return EventStream(_after(opened(), events(pieces)), pieces, self.pieces)


async def begin(request: Request, backend: Backend, make_ask: Callable[[], Ask]) -> Turn:
    """Retrieve and pack what `make_ask` asks for; it may read the catalog."""

    async def prepare() -> Prepared:
        return await prepare_with_model(backend, await anyio.to_thread.run_sync(make_ask))

    prepared = await unless_gone(request, prepare())
    request.state.trace_id = prepared.trace_id
    return Turn(prepared, answer(backend, prepared))


def grounds(prepared: Prepared, said: Answer) -> Grounds:
    """What an answer stands on."""
    return Grounds(
        citations=[CitationObject.model_validate(citation) for citation in said.citations],
        grounded=said.grounded,
        removed_markers=[RemovedMarkerObject.model_validate(marker) for marker in said.removed_markers],
        trace_id=prepared.trace_id,
        wording_usage=None if prepared.wording is None else UsageObject.of(prepared.wording),
    )


async def unless_gone(
    request: Request, work: Awaitable[Result], meanwhile: Callable[[], object] = lambda: None
) -> Result:
    """The result of some work, which is cancelled when the caller goes away; `meanwhile` is called while the work waits
    for something, if it does. Raises ClientDisconnect when the caller has gone."""
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
        await anyio.lowlevel.checkpoint()
        meanwhile()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()
    if faults:
        raise faults[0]
    if not results:
        raise ClientDisconnect()
    return results[0]


async def _last(pieces: Pieces) -> Answer:
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
    raise AssertionError("the stream ended without its answer")


async def _after(opening: bytes, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stream with something in front of its first piece, sent together."""
    async with aclosing(events):
        yield opening + await anext(events)
        async for piece in events:
            yield piece


async def _again(first: TextDelta | Answer, pieces: Pieces) -> Pieces:
    """A stream whose first piece was taken already."""
    yield first
    async for piece in pieces:
        yield piece
