"""How much there is of what, over all tenants: for whoever watches the installation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.catalog import batches, drift, schema
from rag.catalog.records import DAY, FOLLOWING

_documents, _generations, _stores = schema.documents.c, schema.generations.c, schema.stores.c


@dataclass(frozen=True)
class Stock:
    """What the catalog holds, by state, and what waits."""

    documents: Mapping[str, int]
    open_batches: int
    generations: Mapping[str, int]
    generation_lag: Mapping[str, int]
    """By the state of a generation: the most changes of its store that one lacks."""
    drift_alarms: Mapping[str, int]
    """Alarms that stand, by what they watch."""


def read_stock(connection: Connection) -> Stock:
    """All of it at one moment."""
    return Stock(
        documents=_by_state(connection, schema.documents, schema.ACTIVE_STATES + schema.TERMINAL_STATES),
        open_batches=batches.count_open(connection),
        generations=_by_state(connection, schema.generations, (*FOLLOWING, "retired", "failed")),
        generation_lag=_lag(connection),
        drift_alarms=drift.standing_alarms(connection, int(time.time()) // DAY),
    )


def _by_state(connection: Connection, table: sa.Table, states: tuple[str, ...]) -> dict[str, int]:
    query = sa.select(table.c.state, sa.func.count()).group_by(table.c.state)
    return dict.fromkeys(states, 0) | {state: int(number) for state, number in connection.execute(query)}


def _lag(connection: Connection) -> dict[str, int]:
    behind = sa.func.max(_stores.seq - _generations.filled_through)
    query = (
        sa.select(_generations.state, behind)
        .join(schema.stores, _stores.id == _generations.store_id)
        .where(_generations.state.in_(FOLLOWING), _generations.state != "live")
        .group_by(_generations.state)
    )
    return {state: int(number) for state, number in connection.execute(query)}
