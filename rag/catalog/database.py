"""Opening the catalog's database and holding transactions on it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from indexes.errors import ChangeRequest, TryLater
from rag.catalog import schema


class Database:
    """The catalog's connections.

    `read()` is one consistent snapshot, `write()` one transaction that is durable when it ends without an
    error. Both translate a busy, full or broken disk into TryLater.
    """

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.engine = _open_engine(self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the catalog throughout."""
        with _translated(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all of it happens, durably, or none of it."""
        with _translated(), self.engine.connect() as connection:
            # A deferred transaction that turns into a write fails at once whatever the timeout.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self.engine.dispose()


def open_database(folder: Path) -> Database:
    """Open (or make) the SQLite catalog in a data folder, with its schema brought up to date."""
    path = folder / "catalog.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    _ensure_installation(database)
    return database


def migrate(database: Database) -> None:
    """Bring the schema to the newest revision. Raises ChangeRequest for a catalog from a newer release."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    head = script.get_current_head()
    with database.read() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == head:
        return
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise ChangeRequest(
            f"The catalog was made by a newer release (schema {current}). "
            "Start that release, or use another data folder.",
            code="catalog_too_new",
        )
    with database.write() as connection:
        context = MigrationContext.configure(
            connection, opts={"fn": lambda revision, _context: script._upgrade_revs("head", revision)}
        )
        from alembic.operations import Operations

        with Operations.context(context):
            context.run_migrations()


def incarnation(connection: Connection) -> str:
    """The catalog's incarnation: what was derived under another one is not to be trusted."""
    return str(connection.execute(sa.select(schema.installation.c.incarnation)).scalar_one())


def _ensure_installation(database: Database) -> None:
    with database.write() as connection:
        if connection.execute(sa.select(schema.installation.c.id)).first() is None:
            values = {"id": 1, "incarnation": secrets.token_hex(16), "created_at": int(time.time())}
            connection.execute(sa.insert(schema.installation).values(values))


def _open_engine(url: sa.URL) -> Engine:
    # The driver's own transaction handling is switched off: BEGIN is ours to say, above.
    engine = sa.create_engine(
        url,
        pool_size=16,
        max_overflow=48,
        connect_args={"timeout": 30.0, "isolation_level": None, "check_same_thread": False},
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


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        text = str(error.orig)
        if "full" in text:
            raise TryLater(
                "The disk of the data folder is full. Free some space; nothing stored is lost.", code="storage_full"
            ) from error
        if "locked" in text or "busy" in text:
            raise TryLater("The catalog is busy; try again.", code="catalog_busy", retry_after=1.0) from error
        if "unable to open" in text or "readonly" in text or "disk I/O" in text:
            raise TryLater(
                f"The catalog cannot be used: {text}. Check the data folder and its permissions.",
                code="catalog_unavailable",
            ) from error
        raise
