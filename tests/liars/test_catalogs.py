from __future__ import annotations

from pathlib import Path

import pytest

from rag.catalog.database import Database, open_database
from tests.contracts.catalog import CHECKS
from tests.liars.catalogs import POSTGRESQL_LIARS, SQLITE_LIARS
from tests.postgres import Postgres


@pytest.mark.parametrize("liar", SQLITE_LIARS)
def test_the_contract_catches_on_sqlite(liar: str, tmp_path: Path) -> None:
    assert caught(SQLITE_LIARS[liar], lambda number: f"sqlite:///{tmp_path / f'{number}.db'}")


@pytest.mark.parametrize("liar", POSTGRESQL_LIARS)
def test_the_contract_catches_on_postgresql(liar: str, postgres: Postgres) -> None:
    with postgres.database() as url:
        # A schema each: they are catalogs of their own.
        assert caught(POSTGRESQL_LIARS[liar], lambda number: _schema(url, number))


def test_their_honest_parent_passes(tmp_path: Path) -> None:
    assert not caught(Database, lambda number: f"sqlite:///{tmp_path / f'{number}.db'}")


def caught(kind: type[Database], place) -> list[str]:
    return [check.__name__ for number, check in enumerate(CHECKS) if _fails(check, kind, place(number))]


def _fails(check, kind: type[Database], url: str) -> bool:
    opened = [open_database(Path(), url)]

    def open_catalog() -> Database:
        opened.append(kind(url))
        return opened[-1]

    try:
        check(open_catalog)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
        return True
    finally:
        for database in opened:
            Database.close(database) if hasattr(database, "engine") else None
    return False


def _schema(url: str, number: int) -> str:
    database = Database(url)
    with database.write(mover=True) as connection:  # which looks at no table
        connection.exec_driver_sql(f"CREATE SCHEMA catalog_{number}")
    database.close()
    return f"{url}?options=-csearch_path%3Dcatalog_{number}"
