"""The databases that a catalog can lie in, each with how it is opened, begun and its errors told in our own words.

sqlite      one file; one writer at a time, which BEGIN IMMEDIATE waits for
postgresql  version 13 or later; one writer at a time too, by an advisory lock, beside whom nobody else writes,
            except that writers which say so (`Database.write(shared=True)`) go beside each other
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from indexes.errors import ChangeRequest, RagError, TryLater, Unsupported

OLDEST_POSTGRESQL = 13
SILENT_SECONDS = 5
"""How long a writer on another machine may say nothing in the middle of a transaction: the lock of one that was
stopped there would keep everybody from writing."""
WAIT_SECONDS = 30
"""How long a writer waits for others before it is told that the catalog is busy."""

# What the driver does by itself when a transaction begins is switched off: BEGIN is said by `Database`.


@dataclass(frozen=True)
class Kind:
    """One kind of database: the statements that begin a transaction, how to open it, what its errors mean."""

    read: str
    write: str
    write_shared: str
    open: Callable[[sa.URL], Engine]
    explain: Callable[[sa.exc.DBAPIError, str], RagError | None]
    """What an error means at a place (a URL without secrets); None when it is nobody's fault but ours."""


def parse_url(url: str) -> sa.URL:
    """A catalog's URL. Raises ChangeRequest and Unsupported; no message repeats the URL, which may hold a password."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ChangeRequest(
            "The catalog's address is not a URL. It looks like postgresql://user:password@host:5432/name; in a "
            "password, write characters such as @, : and / as %40, %3A and %2F.",
            code="bad_catalog_url",
        ) from None
    name = parsed.get_backend_name()
    if name not in KINDS or parsed.drivername not in ("sqlite", "postgresql", "postgresql+psycopg"):
        raise Unsupported(
            f"The catalog cannot lie in {parsed.drivername!r}. Take sqlite:///path or postgresql://…",
            code="unknown_catalog",
        )
    if name == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ChangeRequest(
            "A catalog in memory would be gone at the end. Name a file: sqlite:///path.", code="bad_catalog_url"
        )
    return parsed.set(drivername="postgresql+psycopg") if name == "postgresql" else parsed


def shown_url(url: sa.URL) -> str:
    """A catalog's URL as it may be shown: without password and without options, which may hold others."""
    return url.set(drivername=url.get_backend_name(), password=None, query={}).render_as_string()


def _open_sqlite(url: sa.URL) -> Engine:
    engine = sa.create_engine(
        url,
        pool_size=16,
        max_overflow=48,
        # The one used last: each keeps pages of its own, and taken in turn they would all keep the same.
        pool_use_lifo=True,
        hide_parameters=True,
        json_deserializer=_parsed,
        connect_args={"timeout": float(WAIT_SECONDS), "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "cache_size = -65536",
            "temp_store = MEMORY",
            "mmap_size = 268435456",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _parsed(text: str) -> Any:
    """What a column of JSON holds: mostly nothing, three times in each chunk that is found."""
    if text == "[]":
        return []
    return {} if text == "{}" else json.loads(text)


def _explain_sqlite(error: sa.exc.DBAPIError, place: str) -> RagError | None:
    words = str(error.orig)
    if not isinstance(error, sa.exc.OperationalError):
        return None
    if "full" in words:
        return TryLater(
            "The disk of the data folder is full. Free some space; nothing stored is lost.", code="storage_full"
        )
    if "locked" in words or "busy" in words:
        return TryLater("The catalog is busy; try again.", code="catalog_busy", retry_after=1.0)
    if "unable to open" in words or "readonly" in words or "disk I/O" in words:
        return TryLater(
            f"The catalog {place} cannot be used: {words}. Check the data folder and its permissions.",
            code="catalog_unavailable",
        )
    return None


def _open_postgresql(url: sa.URL) -> Engine:
    patience = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    engine = sa.create_engine(
        url,
        # A server takes 100 connections unless told otherwise, and several processes share them.
        pool_size=8,
        max_overflow=24,
        pool_pre_ping=True,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
        connect_args={"application_name": "rag", **{k: v for k, v in patience.items() if k not in url.query}},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: object, _record: object) -> None:
        require_version(connection.info.server_version, shown_url(url))  # type: ignore[attr-defined]
        # What is acknowledged is durable, whatever the server does by default.
        durable = "SELECT set_config('synchronous_commit', 'on', false)"
        connection.execute(  # type: ignore[attr-defined]
            f"{durable} WHERE current_setting('synchronous_commit') = 'off'"
        )

    return engine


def require_version(number: int, place: str) -> None:
    """Raise ChangeRequest for a server that is too old; `number` as libpq gives it: 130005 is 13.5."""
    if number < OLDEST_POSTGRESQL * 10_000:
        raise ChangeRequest(
            f"The server of the catalog {place} is PostgreSQL {number // 10_000}. "
            f"Version {OLDEST_POSTGRESQL} is the oldest that will do.",
            code="catalog_too_old",
        )


def _explain_postgresql(error: sa.exc.DBAPIError, place: str) -> RagError | None:
    words, state = str(error.orig), getattr(error.orig, "sqlstate", None) or ""
    for states, phrases, explain in _POSTGRESQL:
        if state.startswith(states) if state else any(phrase in words for phrase in phrases):
            return explain(place, _said(words))
    # A connection that is refused or breaks off has no state.
    return _unavailable(place, _said(words)) if isinstance(error, sa.exc.OperationalError) and not state else None


def _said(words: str) -> str:
    """The first thing that the driver says, without the address that libpq puts before the server's own words."""
    first = (words.strip().splitlines() or [""])[0]
    return first.rpartition("FATAL:")[2].strip().rstrip(".")


def _busy(_place: str, _said: str) -> RagError:
    return TryLater("The catalog is busy; try again.", code="catalog_busy", retry_after=1.0)


def _full(place: str, _said: str) -> RagError:
    return TryLater(
        f"The disk or the memory of the server of the catalog {place} is full. Free some; nothing stored is lost.",
        code="storage_full",
    )


def _refused(place: str, said: str) -> RagError:
    return ChangeRequest(
        f"The catalog {place} does not let this process in: {said}. Correct the setting `catalog`, or the rights of "
        "its user.",
        code="catalog_refused",
    )


def _unstorable(_place: str, said: str) -> RagError:
    return ChangeRequest(f"The catalog cannot hold a value of the request: {said}.", code="bad_value")


def _unavailable(place: str, said: str) -> RagError:
    return TryLater(
        f"The catalog {place} does not answer: {said}. See that its server runs and can be reached.",
        code="catalog_unavailable",
        retry_after=1.0,
    )


# The beginnings of SQLSTATEs, and phrases of the server for where there is none.
_POSTGRESQL: tuple[tuple[tuple[str, ...], tuple[str, ...], Callable[[str, str], RagError]], ...] = (
    (("40", "55P03"), ("too many clients", "connection slots"), _busy),
    (("531", "532"), (), _full),
    (
        ("28", "3D000", "3F000", "42501"),
        ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "invalid connection option"),
        _refused,
    ),
    (("22",), ("cannot contain NUL",), _unstorable),
    (("08", "0A000", "53", "57P", "58"), (), _unavailable),
)

# A reader's snapshot is taken at its first query. A writer's must be taken anew by each statement (READ COMMITTED):
# under any other level it would be as old as the wait for the lock, and show nothing of what others wrote meanwhile.
_BEGIN_WRITE = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '{WAIT_SECONDS}s'; "
    f"SET LOCAL idle_in_transaction_session_timeout = '{SILENT_SECONDS}s'; "
    # One lock for one catalog: the locks of another database are others, those of another schema have another number.
    "SELECT pg_advisory_xact_lock{}(7461, hashtext(current_schema()))"
)

KINDS = {
    "sqlite": Kind("BEGIN", "BEGIN IMMEDIATE", "BEGIN IMMEDIATE", _open_sqlite, _explain_sqlite),
    "postgresql": Kind(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        _BEGIN_WRITE.format(""),
        _BEGIN_WRITE.format("_shared"),
        _open_postgresql,
        _explain_postgresql,
    ),
}
