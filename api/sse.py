"""Server-sent events whose source stops as soon as nobody reads them any more."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"
CLOSE_SECONDS = 5.0
"""That a source gets to stop its work, after its reader has gone."""


def event(data: Any, name: str | None = None) -> bytes:
    """One event. JSON has no line breaks, so it is one line."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Sends events as they come. When the caller goes away, `events` and what it reads from, `sources`, are closed."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], *sources: AsyncGenerator[Any, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._sources = sources

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as group:

                async def write() -> None:
                    await self._write(send)
                    group.cancel_scope.cancel()

                group.start_soon(write)
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()
        finally:
            # Not from within `events`: a generator that was never started runs no code when it is closed.
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._events.aclose()
                for source in self._sources:
                    await source.aclose()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._events:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
