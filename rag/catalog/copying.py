"""Rows from one catalog to another, whatever kinds of database they lie in: read, written and compared by page.

A checksum is over the values as Python has them, so it is the same for the same rows on every database: floats and
bytes to the bit, JSON by content. It is a sum over rows, because databases order texts differently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.catalog import schema

PAGE = 1_000
"""Rows that are held at once."""
LEFT = (schema.installation, schema.workers, schema.index_tasks)
COPIED = [table for table in schema.metadata.sorted_tables if table not in LEFT]
"""The tables of a copy, those that others refer to first. An engine is filled anew: what one was still to be told is of
no use to it."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Checksum:
    """What a table holds: rows, and the sum of their SHA-256 modulo 2**256, in 64 hexadecimal digits."""

    rows: int
    digest: str


def read_page(
    connection: Connection, table: sa.Table, after: Sequence[Any] | None, changed: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows behind a key (of `key_of`), in the order of keys, with the values in `changed` over theirs."""
    keys = list(table.primary_key)
    query = sa.select(table).order_by(*keys).limit(PAGE)
    if after is not None:
        values = [bytes.fromhex(v) if _is_bytes(column) else v for column, v in zip(keys, after, strict=True)]
        last = [sa.literal(value, column.type) for column, value in zip(keys, values, strict=True)]
        query = query.where(sa.tuple_(*keys) > sa.tuple_(*last))
    return [{**row._mapping, **changed} for row in connection.execute(query)]


def key_of(table: sa.Table, row: Mapping[str, Any]) -> list[Any]:
    """A row's primary key as JSON takes it."""
    return [row[c.name].hex() if _is_bytes(c) else row[c.name] for c in table.primary_key]


def write_page(connection: Connection, table: sa.Table, rows: Rows) -> None:
    """Write rows as they are, with their ids."""
    if rows:
        connection.execute(sa.insert(table), list(rows))


def pages(connection: Connection, table: sa.Table, changed: Mapping[str, Any]) -> Iterator[Rows]:
    """All rows of a table, page by page."""
    after = None
    while rows := read_page(connection, table, after, changed):
        yield rows
        after = key_of(table, rows[-1])


def checksum(connection: Connection, table: sa.Table, changed: Mapping[str, Any]) -> Checksum:
    """What a table holds, with the values in `changed` over the rows' own."""
    number = total = 0
    for rows in pages(connection, table, changed):
        number += len(rows)
        total += sum(_row_hash(table, row) for row in rows)
    return Checksum(number, f"{total % 2**256:064x}")


def count(connection: Connection, table: sa.Table) -> int:
    """Rows of a table."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def first_filled(connection: Connection) -> str | None:
    """The name of a table that holds something, None when nothing was ever put into this catalog."""
    for table in (*COPIED, schema.workers):
        if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
            return table.name
    return None


def clear(connection: Connection) -> None:
    """Take everything out again."""
    for table in reversed(COPIED):
        connection.execute(sa.delete(table))


def change_all(connection: Connection, changed: Mapping[str, Mapping[str, Any]]) -> None:
    """Give every row of these tables these values."""
    for table in COPIED:
        if changed.get(table.name):
            connection.execute(sa.update(table).values(**changed[table.name]))


def last_ids(connection: Connection) -> dict[str, int]:
    """The largest number that each table ever gave to a row, also to one that is gone."""
    numbered = [table.name for table in (*COPIED, schema.workers) if "id" in table.c]
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")
        given = {str(row.name): int(row.seq) for row in rows}
        return {name: given.get(name, 0) for name in numbered}
    query = sa.text("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(:name, 'id')::regclass), 0)")
    return {name: int(connection.execute(query, {"name": name}).scalar_one()) for name in numbered}


def never_give_again(connection: Connection, last: Mapping[str, int]) -> None:
    """Let each table go on counting behind these numbers."""
    for name, number in last.items():
        if number == 0:
            continue
        values = {"name": name, "number": number}
        if connection.dialect.name == "sqlite":
            connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), values)
            connection.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :number)"), values)
        else:
            connection.execute(sa.text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :number)"), values)


def needed_blobs(connection: Connection, after: str, most: int) -> list[str]:
    """The keys behind `after` of the blobs that files and versions name, ascending, so many at most."""
    keys = _needed_blobs(after)
    return [str(key) for key in connection.execute(sa.select(keys).order_by(keys.c.key).limit(most)).scalars()]


def count_needed_blobs(connection: Connection) -> int:
    """How many blobs files and versions name."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(_needed_blobs(""))).scalar_one())


def _needed_blobs(after: str) -> sa.Subquery:
    files, versions = schema.files.c, schema.versions.c
    originals = sa.select(files.blob.label("key")).where(files.blob > after)
    texts = sa.select(versions.text_blob).where(versions.text_blob > after, versions.purged == sa.false())
    return sa.union(originals, texts).subquery()


def _is_bytes(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, sa.LargeBinary)


def _row_hash(table: sa.Table, row: Mapping[str, Any]) -> int:
    values = [row[column.name] for column in table.columns]
    canonical = json.dumps(values, sort_keys=True, default=lambda value: {"bytes": bytes(value).hex()})
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest())
