"""The app under uvicorn: in the foreground for `rag serve`, in a thread for a command without a server."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from api.app import create_app
from indexes.errors import ChangeRequest, RagError, TryLater
from rag.settings import Settings

STOP_SECONDS = 6.0
"""After a signal the process ends by then, whatever is still at work: it resumes at the next start."""
INTERRUPTED = 130
"""The exit code of a command that had to be ended so."""
TURN_SECONDS = 0.0005
"""That one thread computes before another one may. Each word that is sent waits for such a turn while a thread works
something out; at Python's 5 ms, fifty streams would stand still for a quarter of a second."""
_REQUEST_SECONDS = 2
"""That a request in progress gets to finish."""
_START_SECONDS = 120.0
_JOIN_SECONDS = 60.0


class Server(uvicorn.Server):
    """The app, and why it did not start."""

    def __init__(self, settings: Settings, *, jobs: bool, uds: Path | None = None) -> None:
        self._app = create_app(settings, jobs=jobs, warm=uds is None)
        self.fault: BaseException | None = None
        super().__init__(
            uvicorn.Config(
                self._watched,
                uds=None if uds is None else str(uds),
                log_config=None,
                lifespan="on",
                interface="asgi3",
                http="h11",  # httptools takes a tenth less time and headers of any size
                server_header=False,
                access_log=False,
                timeout_graceful_shutdown=_REQUEST_SECONDS,
            )
        )

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop. uvicorn ends the whole program when the app does not start; here it only returns:
        see `require_started`."""
        with suppress(SystemExit):
            super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and keep what is there by then out of the collector's way: going through all of it stops every stream
        for a sixth of a second, again and again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(TURN_SECONDS)

    def require_started(self) -> None:
        """Raise what kept the app from starting, if anything did."""
        if self.started:
            return
        if isinstance(self.fault, RagError):
            raise self.fault
        why = f": {type(self.fault).__name__}: {self.fault}" if self.fault else ""
        raise TryLater(f"The backend did not start{why}. `rag doctor` may say why.", code="not_started") from self.fault

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; and see to it that the process ends even where a thread is deep in a computation."""
        _end_by(STOP_SECONDS, 0)
        super().handle_exit(sig, frame)

    async def _watched(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            if scope["type"] == "lifespan":
                self.fault = error
            raise


@contextmanager
def serving(settings: Settings, path: Path, *, jobs: bool) -> Iterator[None]:
    """Serve at a Unix domain socket from a thread of this process. Raises what keeps the app from starting."""
    server = Server(settings, jobs=jobs, uds=path)
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    waited = 0.0
    while not server.started and thread.is_alive() and waited < _START_SECONDS:
        thread.join(0.01)
        waited += 0.01
    try:
        server.require_started()
        yield
    except (KeyboardInterrupt, SystemExit):
        _end_by(STOP_SECONDS, INTERRUPTED)
        raise
    finally:
        server.should_exit = True
        thread.join(_JOIN_SECONDS)


def _end_by(seconds: float, code: int) -> None:
    """End the process then, if it has not ended by itself."""
    deadline = threading.Timer(seconds, os._exit, (code,))
    deadline.daemon = True
    deadline.start()


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening address. Raises ChangeRequest (`address_unavailable`) where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ChangeRequest(
            f"The server cannot listen on {host}, port {port}: {error.strerror}. Is another one running? "
            "Choose another with --port.",
            code="address_unavailable",
            param="server.port",
        ) from error
    return listener
