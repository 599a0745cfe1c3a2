"""What every request passes before anything of it is parsed. Pure ASGI, so that bodies and answers stream through.

From the outside in: a request id, no unexpected error leaks, Host and Origin (against DNS rebinding and calls from
foreign web pages), who calls and the limits of their key, the size of the body.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Collection
from contextlib import ExitStack
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import documentation
from api.authentication import Doorkeeper
from api.errors import Refused, error_response, unexpected_response
from api.limits import Limiter
from indexes.errors import ChangeRequest, RagError, TryLater
from rag.keys import FRESH_SECONDS
from rag.settings import Settings

OPEN_PATHS = ("/healthz", "/readyz")
"""Routes that never ask for a key; nor does the documentation."""
METRICS_PATH = "/metrics"
"""The route that asks for none on this machine, where the settings say so."""
UPLOAD_PATHS = ("/v1/files",)
"""Routes whose body may be as large as the settings allow."""
JSON_BYTES = 8 << 20
"""The largest body of every other route."""
DRAIN_BYTES = 64 << 20
DRAIN_SECONDS = 2.0
DRAIN_PAUSE = 0.25
"""What is read of a body that is refused, for how long, and how long a silence ends it."""

log = logging.getLogger(__name__)


class RequestId:
    """Gives each request an id (the caller's own, if it is a plain one) and answers with it in `X-Request-ID`; with
    the id of its trace, where it has one, in `X-RAG-Trace-ID`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if re.fullmatch(r"[A-Za-z0-9._-]{1,128}", given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = name

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = name
                if trace_id := scope["state"].get("trace_id"):
                    headers["X-RAG-Trace-ID"] = trace_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class NoLeaks:
    """Turns an unexpected error into a plain 500; the details go to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("request %s failed", scope.get("state", {}).get("request_id"))
            if started:
                raise
            await unexpected_response()(scope, receive, send)


class KnownCallers:
    """Refuses a request whose `Host` or `Origin` is not one of ours."""

    def __init__(self, app: ASGIApp, bound: str, hosts: Collection[str], origins: Collection[str]) -> None:
        """`bound` is the address that the server listens on; `hosts` and `origins` are allowed besides."""
        self._app = app
        self._names = {host.lower().rstrip(".") for host in (bound, *hosts)} | {"localhost"}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._everywhere = _is_wildcard(bound)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))
        app = self._app if refusal is None else error_response(refusal)
        await app(scope, receive, send)

    def _refusal(self, headers: Headers) -> ChangeRequest | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._knows_host(_host_name(hosts[0])):
            return ChangeRequest(
                f"This server does not answer as {', '.join(hosts)!r}. Use an address that it is bound to, or add the "
                "name to `server.allowed_hosts`.",
                code="host_not_allowed",
            )
        if not all(self._knows_origin(origin.lower()) for origin in origins):
            return ChangeRequest(
                f"Web pages from {', '.join(origins)!r} may not call this server. Add the origin to "
                "`server.allowed_origins` if they should.",
                code="origin_not_allowed",
            )
        return None

    def _knows_host(self, name: str | None) -> bool:
        if name is None:
            return False
        address = _address(name)
        if address is not None and (address.is_loopback or self._everywhere):
            return True  # a page can be rebound to an address only under a name of its own
        return name in self._names

    def _knows_origin(self, origin: str) -> bool:
        if origin in self._origins:
            return True
        scheme, separator, place = origin.partition("://")
        return bool(separator) and scheme in ("http", "https") and self._knows_host(_host_name(place))


class Access:
    """Knows who calls before anything of a body is read, and holds them to the limits of their key and to the time that
    a request may take. Whether they may call a route is for the route to say (`api.dependencies.requires`).

    A stream breaks off when its time is over, and within a second or so when its key is good no more."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._door = Doorkeeper(settings)
        self._limiter = Limiter()
        self._seconds = settings.server.request_seconds
        self._open_metrics = settings.server.open_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] not in ("http", "websocket") or path in OPEN_PATHS or documentation.shows(path):
            await self._app(scope, receive, send)
            return
        with ExitStack() as stack:
            try:
                if self._open_metrics and scope["path"] == METRICS_PATH and _is_local(scope):
                    caller = self._door.operator
                else:
                    caller = await self._door.caller(Headers(scope=scope), scope["app"].state)
                told = stack.enter_context(self._limiter.admit(caller))
            except RagError as error:
                await error_response(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
            await self._within_time(told, scope, receive, send)

    async def _within_time(self, told: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        """A handler that runs in a thread is not interrupted; its answer comes too late, then."""
        started, checked = False, time.monotonic()

        async def send_told(message: Message) -> None:
            nonlocal started, checked
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(told)
            elif message.get("more_body") and time.monotonic() - checked > FRESH_SECONDS:
                checked = time.monotonic()
                if not await self._door.holds(Headers(scope=scope), scope["app"].state):
                    limit.cancel()
            await send(message)

        with anyio.move_on_after(self._seconds) as limit:
            await self._app(scope, receive, send_told)
        if limit.cancelled_caught and not started:
            too_long = f"The request took longer than the {self._seconds:g} seconds that it may. Ask for less at once."
            await error_response(TryLater(too_long, code="request_timeout"))(scope, receive, send)


class BodyLimit:
    """Refuses a body that is too large: by what it says, and by counting what comes."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        """`most` is the limit of an upload in bytes."""
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most if scope["path"] in UPLOAD_PATHS else min(JSON_BYTES, self._most)
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            if "expect" not in headers:  # else the caller waits for leave to send
                await _drain(receive)
            await error_response(_too_large(most))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                await _drain(receive)
                raise Refused(_too_large(most))
            return message

        await self._app(scope, counted, send)


def is_loopback(host: str) -> bool:
    """Whether a server bound to this address can be reached from this machine only."""
    address = _address(host.strip("[]"))
    return host == "localhost" or (address is not None and address.is_loopback)


def _is_local(scope: Scope) -> bool:
    """Whether a request comes from this machine: from itself, as far as proxies in front of the server tell."""
    return bool(scope.get("client")) and is_loopback(scope["client"][0])


async def _drain(receive: Receive) -> None:
    """Read on for a while: a caller that is still sending when the connection closes never sees the answer."""
    read = 0
    with anyio.move_on_after(DRAIN_SECONDS):
        while read < DRAIN_BYTES:
            message: Message = {}
            with anyio.move_on_after(DRAIN_PAUSE):
                message = await receive()
            read += len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def _too_large(most: int) -> ChangeRequest:
    return ChangeRequest(
        f"The body is larger than the limit of {most} bytes. Send less, or raise `server.max_body_mb` for uploads.",
        code="body_too_large",
    )


def _host_name(host: str) -> str | None:
    """The name in a `Host` header, without port and closing dot; None for what is none."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?", host):
        return None
    return (urlsplit(f"//{host}").hostname or "").rstrip(".") or None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_wildcard(host: str) -> bool:
    address = _address(host.strip("[]"))
    return address is not None and address.is_unspecified
