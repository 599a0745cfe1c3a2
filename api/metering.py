"""Around every request: counts it by the template of its route and how it was answered, and lets what it searched for
be mirrored once it has ended. Pure ASGI, outside of everything else."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import METHODS

UNKNOWN = "none"
"""What stands for a path that no route has, and for a method that is none."""
GONE = 499
"""The status of a request whose caller left before it had one."""


class Metered:
    """Counts and times what the app answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        app = scope["app"].state
        try:
            with app.mirroring.after():
                await self._app(scope, receive, noting)
        finally:
            method = scope["method"] if scope["method"] in METHODS else UNKNOWN
            app.backend.meters.request(method, _route(scope), status, time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """The template of the route, which has few values; the path itself is the caller's to choose."""
    return getattr(scope.get("route"), "path", UNKNOWN)
