"""Opening the catalog's database and holding transactions on it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from indexes.errors import ChangeRequest, TryLater
from rag.catalog import moves, schema
from rag.catalog.engines import KINDS, parse_url, shown_url


class Database:
    """The catalog's connections, on SQLite or PostgreSQL. Safe to use from several threads.

    `read()` is one consistent snapshot, `write()` one transaction that is durable when it ends without an
    error. Both raise TryLater for a server or a disk that is busy, full or out of reach, and ChangeRequest where the
    setting or a value must change. `url` may hold a password; `place` is what may be shown.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.place = shown_url(self.url)
        self.blobs: str | None = None
        """The place of the blobs that this process keeps beside the catalog, where it keeps any."""
        self._kind = KINDS[self.url.get_backend_name()]
        self.engine = self._kind.open(self.url)
        self._closed = False
        sa.event.listen(self.engine, "checkin", self._give_back)

    @property
    def one_machine(self) -> bool:
        """Whether only processes of this machine can share the catalog (SQLite)."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the catalog throughout."""
        with self._translated(), self.engine.connect() as connection:
            try:
                connection.exec_driver_sql(self._kind.read)
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def write(self, *, shared: bool = False, mover: bool = False) -> Iterator[Connection]:
        """A transaction: all of it happens, durably, or none of it. Nobody else writes meanwhile.

        Raises as `moves.require_writable` does while the catalog is moved and once it has; not for the `mover`.

        `shared` lets others that are `shared` write beside it, where the database can. It is for what is right by the
        locks of the rows that it changes and by what only a transaction without `shared` takes away. Change rows in
        one order, vectors before documents before stores and each by ascending key, or two may wait for each other
        (one of them is then told to try later).
        """
        with self._translated(), self.engine.connect() as connection:
            try:
                connection.exec_driver_sql(self._kind.write_shared if shared else self._kind.write)
                if not mover:
                    moves.require_writable(connection, self.blobs)
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def answering(self) -> str:
        """What answers, such as "postgresql 15.3". Raises as `read` does."""
        with self.read() as connection:
            connection.exec_driver_sql("SELECT 1")
            version = connection.dialect.server_version_info or ()
        return f"{self.url.get_backend_name()} {'.'.join(map(str, version))}"

    def close(self) -> None:
        """Close every connection, those in use when they are given back. Idempotent."""
        self._closed = True
        self.engine.dispose()

    def _give_back(self, _connection: object, record: sa.pool.ConnectionPoolEntry) -> None:
        if self._closed:
            record.invalidate()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.TimeoutError as error:  # every connection of the pool is in use
            raise TryLater("The catalog is busy; try again.", code="catalog_busy", retry_after=1.0) from error
        except sa.exc.DBAPIError as error:
            told = self._kind.explain(error, self.place)
            if told is None:
                raise
            raise told from error


def open_database(folder: Path, url: str | None = None, *, mover: bool = False) -> Database:
    """Open (or make) a catalog, by default SQLite in the data folder, with its schema brought up to date.

    Raises TryLater (`half_moved`) for one that a move has not finished copying, unless it is for the `mover`.
    """
    database = Database(url or f"sqlite:///{folder / 'catalog.db'}")
    try:
        migrate(database)
        _ensure_installation(database)
        if not mover:
            with database.read() as connection:
                moves.require_arrived(connection)
    except BaseException:
        database.close()
        raise
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
    # As a mover would: the mark of a move lies in what is migrated.
    with database.write(mover=True) as connection:
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
    with database.read() as connection:
        if connection.execute(sa.select(schema.installation.c.id)).first() is not None:
            return
    with database.write() as connection:
        if connection.execute(sa.select(schema.installation.c.id)).first() is None:
            values = {"id": 1, "incarnation": secrets.token_hex(16), "created_at": int(time.time())}
            connection.execute(sa.insert(schema.installation).values(values))
