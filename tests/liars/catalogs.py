"""Catalogs that are wrong on purpose, each in one way; the contract must catch every one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

from rag.catalog.database import Database


def begun_otherwise(**statements):
    """A catalog whose transactions begin with other statements: a function of the right one for each."""

    class BegunOtherwise(Database):
        def __init__(self, url):
            super().__init__(url)
            kind = self._kind
            self._kind = replace(kind, **{name: make(getattr(kind, name)) for name, make in statements.items()})

    return BegunOtherwise


class KeepsWhatBrokeOff(Database):
    @contextmanager
    def write(self, **options):
        raised = None
        with super().write(**options) as connection:
            try:
                yield connection
            except RuntimeError as error:
                raised = error
        if raised is not None:
            raise raised


class NeverCommits(Database):
    @contextmanager
    def write(self, **options):
        with super().read() as connection:
            yield connection


class CommitsOnTheWay(Database):
    """Every statement for itself, as a driver does that is left to its own ways."""

    @contextmanager
    def write(self, **options):
        with super().write(**options) as connection:
            connection.exec_driver_sql("COMMIT")
            yield connection


class ReadsKeepWhatIsWritten(begun_otherwise(read=lambda s: s.replace("READ ONLY", "READ WRITE"))):
    @contextmanager
    def read(self):
        with super().read() as connection:
            yield connection
            connection.commit()


class IdsUsedAgain(Database):
    """As SQLite does without AUTOINCREMENT."""

    @contextmanager
    def write(self, **options):
        with super().write(**options) as connection:
            connection.exec_driver_sql("DELETE FROM sqlite_sequence")
            yield connection


class ClosesOnce(Database):
    def close(self):
        super().close()
        del self.engine


def _unlocked(statement: str) -> str:
    return statement.replace("pg_advisory_xact_lock", "pg_try_advisory_xact_lock")


SQLITE_LIARS = {
    "keeps what broke off": KeepsWhatBrokeOff,
    "never commits": NeverCommits,
    "commits on the way": CommitsOnTheWay,
    "reads keep what is written": ReadsKeepWhatIsWritten,
    "ids used again": IdsUsedAgain,
    "closes once": ClosesOnce,
    "a read without a transaction": begun_otherwise(read=lambda _: "SELECT 1"),
    "a write that begins as a read": begun_otherwise(write=lambda _: "BEGIN"),
}
POSTGRESQL_LIARS = {
    "keeps what broke off": KeepsWhatBrokeOff,
    "never commits": NeverCommits,
    "commits on the way": CommitsOnTheWay,
    "reads keep what is written": ReadsKeepWhatIsWritten,
    "a read that takes a new look each time": begun_otherwise(
        read=lambda s: s.replace("REPEATABLE READ", "READ COMMITTED")
    ),
    "a write as old as its wait": begun_otherwise(write=lambda s: s.replace("READ COMMITTED", "REPEATABLE READ")),
    "a write without a lock": begun_otherwise(write=_unlocked),
    "a shared write without a lock": begun_otherwise(write_shared=_unlocked),
    "a write alone that is shared": begun_otherwise(write=lambda s: s.replace("lock(", "lock_shared(")),
    "a lock let go before the end": begun_otherwise(
        write=lambda s: s.replace("pg_advisory_xact_lock", "pg_advisory_lock") + "; SELECT pg_advisory_unlock_all()"
    ),
}
