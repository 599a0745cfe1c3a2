"""What every catalog must hold, whatever database it lies in: transactions whole, snapshots, turns, ids."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.access import Caller
from rag.blobs import StoredBlob
from rag.catalog import files, schema
from rag.catalog.database import Database

Open = Callable[[], Database]
"""Opens the same catalog, empty at first and with its tables made, as another process would."""


def add(connection: Connection, name: str) -> int:
    return files.add_file(connection, Caller("default"), name, "assistants", StoredBlob("0" * 64, 1)).id


def names(connection: Connection) -> list[str]:
    return list(connection.execute(sa.select(schema.files.c.filename).order_by(schema.files.c.id)).scalars())


def seen(database: Database) -> list[str]:
    with database.read() as connection:
        return names(connection)


def what_ended_is_seen_by_all(open_catalog: Open) -> None:
    one, other = open_catalog(), open_catalog()
    for shared in (False, True):
        with one.write(shared=shared) as connection:
            add(connection, f"{shared}")
            assert names(connection)[-1] == f"{shared}"
            assert f"{shared}" not in seen(other)
        assert seen(other)[-1] == f"{shared}"


def break_off(database: Database, shared: bool) -> None:
    with database.write(shared=shared) as connection:
        add(connection, "one")
        add(connection, "two")
        raise RuntimeError


def what_broke_off_leaves_nothing(open_catalog: Open) -> None:
    database = open_catalog()
    for shared in (False, True):
        with pytest.raises(RuntimeError):
            break_off(database, shared)
    assert seen(database) == seen(open_catalog()) == []


def a_read_sees_one_state(open_catalog: Open) -> None:
    reader, writer = open_catalog(), open_catalog()
    with writer.write() as connection:
        add(connection, "before")
    with reader.read() as connection:
        assert names(connection) == ["before"]
        with writer.write() as other:
            add(other, "meanwhile")
        assert names(connection) == ["before"]
    assert seen(reader) == ["before", "meanwhile"]


def a_read_keeps_nothing(open_catalog: Open) -> None:
    database = open_catalog()
    try:
        with database.read() as connection:
            add(connection, "written in a read")
    except sa.exc.DBAPIError:
        pass  # refusing it is as good
    assert seen(database) == seen(open_catalog()) == []


def writers_take_turns(open_catalog: Open) -> None:
    """Each reads what is there and adds the next: were two at it together, a number would come twice."""
    databases = [open_catalog() for _ in range(4)]

    def work(number: int) -> None:
        with databases[number % 4].write() as connection:
            there = len(names(connection))
            time.sleep(0.002)
            add(connection, f"{there}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(24)))
    assert seen(databases[0]) == [f"{number}" for number in range(24)]


def nobody_writes_beside_one_alone(open_catalog: Open) -> None:
    """Neither beside the one alone nor, where it goes beside others that are shared, they beside it."""
    one, other = open_catalog(), open_catalog()
    for first, second in ((False, True), (True, False)):
        order: list[str] = []

        def follow(shared: bool = second, order: list[str] = order) -> None:
            with other.write(shared=shared) as connection:
                order.append("second")
                add(connection, "second")

        with ThreadPoolExecutor(1) as threads:
            with one.write(shared=first) as connection:
                following = threads.submit(follow)
                time.sleep(0.15)
                add(connection, "first")
                order.append("first")
            following.result()
        assert order == ["first", "second"]


def ids_are_never_used_again(open_catalog: Open) -> None:
    highest = 0
    for _ in range(3):
        database = open_catalog()
        with database.write() as connection:
            ids = [add(connection, "a"), add(connection, "b")]
            assert ids[1] > ids[0] > highest
            connection.execute(sa.delete(schema.files))
        highest = ids[1]
        database.close()


def closing_twice_is_harmless(open_catalog: Open) -> None:
    database = open_catalog()
    database.close()
    database.close()


CHECKS = (
    what_ended_is_seen_by_all,
    what_broke_off_leaves_nothing,
    a_read_sees_one_state,
    a_read_keeps_nothing,
    writers_take_turns,
    nobody_writes_beside_one_alone,
    ids_are_never_used_again,
    closing_twice_is_harmless,
)
