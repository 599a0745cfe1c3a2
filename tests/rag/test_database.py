"""Opening the catalog's database: the contract on each kind, processes at once, and errors told in our words."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from indexes.errors import ChangeRequest, RagError, TryLater, Unsupported
from rag.catalog import schema, stores
from rag.catalog.database import Database, incarnation, open_database
from rag.catalog.engines import require_version
from tests.contracts.catalog import CHECKS, add, seen
from tests.postgres import PASSWORD, Postgres, running_postgres


def test_what_is_given_back_after_the_end_is_closed(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        database, other = open_database(tmp_path, url), Database(url)
        with database.read():
            database.close()
        assert seen(database) == []  # a thread that comes late
        count = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        with other.read() as connection:
            assert connection.execute(count).scalar() == 1
        other.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(catalog_url: str, tmp_path: Path, check: Callable[[Callable[[], Database]], None]) -> None:
    opened = [open_database(tmp_path, catalog_url)]

    def open_catalog() -> Database:
        opened.append(Database(catalog_url))
        return opened[-1]

    try:
        check(open_catalog)
    finally:
        for database in opened:
            database.close()


def open_and_tell(folder: Path, url: str, start: float, told: multiprocessing.Queue[str]) -> None:
    time.sleep(max(0.0, start - time.time()))
    try:
        database = open_database(folder, url)
        with database.read() as connection:
            told.put(incarnation(connection))
        database.close()
    except BaseException as error:
        told.put(repr(error))
        raise


def test_processes_that_start_at_once_make_one_catalog(catalog_url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[str] = context.Queue()
    start = time.time() + 5.0
    workers = [context.Process(target=open_and_tell, args=(tmp_path, catalog_url, start, told)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    found = [told.get(timeout=10) for _ in workers]
    assert len(set(found)) == 1, found
    assert len(found[0]) == 32


def test_writers_that_are_shared_go_beside_each_other(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        one, other = open_database(tmp_path, url), Database(url)
        with one.write(shared=True) as connection:
            add(connection, "one")
            with other.write(shared=True) as beside:
                add(beside, "other")
            assert seen(other) == ["other"]
        assert sorted(seen(other)) == ["one", "other"]
        one.close()
        other.close()


def test_two_catalogs_in_schemas_of_one_database_do_not_wait_for_each_other(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        database = Database(url)
        with database.write(mover=True) as connection:  # which looks at no table
            for name in ("a", "b"):
                connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        one, other = (open_database(tmp_path, f"{url}?options=-csearch_path%3D{name}") for name in ("a", "b"))
        with one.write() as connection, other.write() as beside:
            add(connection, "one")
            add(beside, "other")
        assert (seen(one), seen(other)) == (["one"], ["other"])
        for opened in (database, one, other):
            opened.close()


def test_what_is_acknowledged_is_durable_whatever_the_server_does_by_default(
    postgres: Postgres, tmp_path: Path
) -> None:
    with postgres.database() as url:
        postgres.run(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
        database = open_database(tmp_path, url)
        for _ in range(2):
            with database.write() as connection:
                assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        database.close()


def test_writers_that_wait_for_each_other_are_told_to_try_later(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        database = open_database(tmp_path, url)
        with database.write() as connection:
            ids = [stores.create_store(connection, "default", name).id for name in ("a", "b")]
        both, ends = threading.Barrier(2), []

        def cross(first: int, second: int) -> None:
            try:
                with database.write(shared=True) as connection:
                    stores.next_seq(connection, first)
                    both.wait()
                    stores.next_seq(connection, second)
                ends.append("done")
            except TryLater as error:
                ends.append(error.code)

        threads = [threading.Thread(target=cross, args=pair) for pair in (ids, ids[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ends) == ["catalog_busy", "done"]
        database.close()


def test_a_writer_that_waits_too_long_is_told_so(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        one, other = open_database(tmp_path, url), Database(url)
        other._kind = replace(other._kind, write=other._kind.write.replace("'30s'", "'50ms'"))
        with one.write(), pytest.raises(TryLater) as refused, other.write():
            pass
        assert refused.value.code == "catalog_busy"
        one.close()
        other.close()


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that a test may stop."""
    with running_postgres() as server:
        yield server


def test_a_server_that_goes_and_comes_back_keeps_what_ended_and_nothing_else(
    own_server: Postgres, tmp_path: Path
) -> None:
    database = open_database(tmp_path, own_server.url())
    with database.write() as connection:
        add(connection, "ended")

    def lose() -> None:
        with database.write() as connection:
            add(connection, "half")
            own_server.stop(signal.SIGQUIT)
            add(connection, "other half")

    with pytest.raises(TryLater, match="does not answer") as lost:
        lose()
    assert lost.value.code == "catalog_unavailable"
    with pytest.raises(TryLater, match="does not answer"), database.read():
        pass
    own_server.start()
    assert seen(database) == ["ended"]
    with database.write() as connection:
        add(connection, "after")
    assert seen(database) == ["ended", "after"]
    database.close()


def wrong(postgres: Postgres) -> dict[str, tuple[str, type[RagError], str, str]]:
    """Addresses that do not do: the URL, and the error with what it must say."""
    here = f"127.0.0.1:{postgres.port}"
    return {
        "password": (postgres.url(password="canary/@:x"), ChangeRequest, "catalog_refused", "authentication failed"),
        "no password": (f"postgresql://postgres@{here}/postgres", ChangeRequest, "catalog_refused", "no password"),
        "user": (f"postgresql://nobody:canary@{here}/postgres", ChangeRequest, "catalog_refused", "nobody"),
        "database": (postgres.url("nosuch"), ChangeRequest, "catalog_refused", '"nosuch" does not exist'),
        "option": (f"{postgres.url()}?canary=canary", ChangeRequest, "catalog_refused", "invalid connection option"),
        "rights": (f"postgresql://weak:canary@{here}/postgres", ChangeRequest, "catalog_refused", "permission denied"),
        "port": ("postgresql://u:canary@127.0.0.1:9/x", TryLater, "catalog_unavailable", "127.0.0.1:9/x"),
        "host": ("postgresql://u:canary@[::1]:9/x?connect_timeout=2", TryLater, "catalog_unavailable", "::1"),
        "no URL": ("canary", ChangeRequest, "bad_catalog_url", "not a URL"),
        "a password with a colon": ("postgresql://u:can:ary@h:canary/x", ChangeRequest, "bad_catalog_url", "%3A"),
        "another database": ("mysql://u:canary@h/x", Unsupported, "unknown_catalog", "mysql"),
        "another driver": ("postgresql+psycopg2://u:canary@h/x", Unsupported, "unknown_catalog", "psycopg2"),
        "memory": ("sqlite://", ChangeRequest, "bad_catalog_url", "in memory"),
    }


@pytest.mark.parametrize("case", wrong(Postgres(Path(), Path(), 0)))
def test_an_address_that_does_not_do_is_told_without_its_secrets(
    case: str, postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if case == "rights":
        postgres.run("DROP ROLE IF EXISTS weak")
        postgres.run("CREATE ROLE weak LOGIN PASSWORD 'canary'")
    url, kind, code, said = wrong(postgres)[case]
    with caplog.at_level(logging.DEBUG), pytest.raises(kind) as refused:
        open_database(tmp_path, url)
    assert type(refused.value) is kind
    assert (refused.value.code, said in refused.value.message) == (code, True), refused.value.message
    for text in (refused.value.message, caplog.text, repr(refused.value.__cause__)):
        assert "canary" not in text.replace('option "canary"', "")
        assert PASSWORD not in text


def test_a_value_that_cannot_be_held_is_the_callers(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as url:
        database = open_database(tmp_path, url)
        for tenant, name in (("t", "a\0b"), ("t" * 65, "a")):
            with pytest.raises(ChangeRequest) as refused, database.write() as connection:
                stores.create_store(connection, tenant, name)
            assert refused.value.code == "bad_value"
        database.close()


def test_a_fault_of_ours_stays_one(catalog_url: str, tmp_path: Path) -> None:
    database = open_database(tmp_path, catalog_url)
    with pytest.raises(sa.exc.DBAPIError) as fault, database.read() as connection:
        connection.execute(sa.select(schema.files).where(sa.text("nonsense = :value")), {"value": "canary"})
    assert "canary" not in str(fault.value)
    database.close()


def test_a_server_that_is_too_old_is_refused() -> None:
    require_version(130_000, "here")
    with pytest.raises(ChangeRequest, match="PostgreSQL 12") as refused:
        require_version(120_017, "here")
    assert refused.value.code == "catalog_too_old"


def test_what_is_shown_holds_no_secret() -> None:
    database = Database("postgresql://user:canary@host:1/name?sslpassword=canary")
    assert database.place == "postgresql://user:***@host:1/name"
    database.close()
