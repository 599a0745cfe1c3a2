"""What every command is called with, and how it ends: a message and an exit code, never a traceback."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.client import Client
    from indexes.errors import RagError
    from rag.settings import Settings

FAILED, CHANGE_REQUEST, NOT_THERE, TRY_LATER, INTERRUPTED, TERMINATED = 1, 2, 3, 4, 130, 143
"""Exit codes."""


@dataclass(frozen=True)
class Call:
    """The options that all commands share."""

    json: bool = False
    url: str | None = None
    key: str | None = None
    data: Path | None = None
    config: Path | None = None


def settings_of(call: Call, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings with this call's flags over them."""
    from rag.settings import load_settings

    return load_settings(call.config, flags={"data": call.data, "server.api_key": call.key, **(flags or {})})


def require_here(call: Call, what: str) -> None:
    """Refuse `--url` for what runs in this process only. Raises ChangeRequest (`not_remote`)."""
    from indexes.errors import ChangeRequest

    if call.url is not None:
        raise ChangeRequest(f"{what} runs in this process, over its own settings: leave --url out.", code="not_remote")


def open_client(call: Call, *, jobs: bool = False) -> AbstractContextManager[Client]:
    """A client of the server that the call names, else of one in this process; `jobs` lets that one do the work."""
    from api.client import local_client, remote_client

    settings = settings_of(call)
    if call.url is None:
        return local_client(settings, jobs=jobs)
    key = settings.server.api_key
    return remote_client(call.url, key.get_secret_value() if key else None)


@contextmanager
def reporting(*, as_json: bool) -> Iterator[None]:
    """Turn every error into a message on stderr and the exit code of its family."""
    from indexes.errors import RagError

    try:
        yield
        sys.stdout.flush()
    except RagError as error:
        _say(error.message, error.code, error.param, as_json=as_json)
        raise SystemExit(_exit_code(error)) from error
    except KeyboardInterrupt as error:
        _say("Interrupted. What was accepted stays and goes on with the next ingest or serve.", "interrupted", None)
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError as error:
        sys.stderr.close()  # whoever read our output has gone; Python would complain once more at exit
        raise SystemExit(FAILED) from error
    except Exception as error:
        _log_traceback(error)
        message = f"Unexpected: {type(error).__name__}: {error}. RAG_LOG_LEVEL=debug shows more."
        _say(message, "server_error", None, as_json=as_json)
        raise SystemExit(FAILED) from error


def end_in_order() -> None:
    """Let SIGTERM unwind the program, so that scratch folders go and a server of its own stops."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)


def start_logging(level: str | None = None) -> None:
    """Log to stderr at this level, else at `RAG_LOG_LEVEL`, else nothing: a command says itself what went wrong."""
    level = level or os.environ.get("RAG_LOG_LEVEL")
    if not level:
        logging.getLogger().addHandler(logging.NullHandler())
        return
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    known = level.upper() if level.upper() in logging.getLevelNamesMapping() else "INFO"
    logging.basicConfig(level=known, stream=sys.stderr, format=form, force=True)
    for talkative in ("httpx", "httpcore", "sentence_transformers", "dbos", "alembic", "asyncio", "python_multipart"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def _say(message: str, code: str, param: str | None, *, as_json: bool = False) -> None:
    if as_json:
        message = json.dumps({"error": {"message": message, "code": code, "param": param}})
    else:
        message = f"rag: {message}"
    print(message.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


def _exit_code(error: RagError) -> int:
    from indexes.errors import ChangeRequest, NotThere, TryLater

    families = {ChangeRequest: CHANGE_REQUEST, NotThere: NOT_THERE, TryLater: TRY_LATER}
    return next((code for family, code in families.items() if isinstance(error, family)), FAILED)


def _log_traceback(error: Exception) -> None:
    import traceback

    if os.environ.get("RAG_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(error)
