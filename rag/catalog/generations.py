"""Generations: one embedding space, one chunk set and one pair of indexes over a store each, of which one is live."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from indexes.errors import ChangeRequest, NotThere
from rag.catalog import schema
from rag.catalog.records import FOLLOWING, Generation, GenerationState, Place, Store

_generations, _stores = schema.generations.c, schema.stores.c


def create_generation(connection: Connection, store: Store, values: Mapping[str, Any]) -> Generation:
    """Make a generation of a store; `values` are columns that `Generation` names."""
    now = int(time.time())
    given = {"public_id": f"gen_{secrets.token_hex(12)}", "store_id": store.id, "tenant": store.tenant}
    row = {**given, "created_at": now, "changed_at": now, **values}
    made = connection.execute(sa.insert(schema.generations).values(row)).inserted_primary_key
    assert made is not None
    query = sa.select(schema.generations).where(_generations.id == made[0])
    return _generation(connection.execute(query).one())


def live_generation(connection: Connection, store_id: int) -> Generation:
    """The generation that answers. Raises NotThere when the store is gone."""
    row = connection.execute(_live_by_store(), {"id": store_id}).first()
    if row is None:
        raise NotThere("The vector store was deleted meanwhile.", code="vector_store_not_found")
    return _generation(row)


def get_generation(connection: Connection, store: Store, public_id: str) -> Generation:
    """A generation of a store by its public id, whatever its state. Raises NotThere."""
    found = find_generation(connection, [store.id], public_id)
    if found is None:
        raise no_generation(public_id)
    return found


def find_generation(connection: Connection, store_ids: Sequence[int], public_id: str) -> Generation | None:
    """The generation of this public id, if it is one of these stores'."""
    query = sa.select(schema.generations).where(_generations.public_id == public_id)
    row = connection.execute(query.where(_generations.store_id.in_(store_ids))).first()
    return None if row is None else _generation(row)


def no_generation(public_id: str) -> NotThere:
    """The error for an id that names no generation of the stores in question."""
    return NotThere(
        f"There is no generation {public_id!r} here. `rag generations list` shows those of a vector store.",
        code="generation_not_found",
        param="generation",
    )


def generations_of(
    connection: Connection, store_id: int, states: Sequence[GenerationState] | None = None
) -> list[Generation]:
    """The generations of a store that are in one of these states (None: in any), oldest first."""
    return _listed(connection, states, _generations.store_id == store_id)


def all_generations(connection: Connection, states: Sequence[GenerationState] | None = None) -> list[Generation]:
    """The same of every store and tenant."""
    return _listed(connection, states)


# ---- where they are --------------------------------------------------------------------------------------------------


def require_searchable(generation: Generation) -> None:
    """Refuse a generation that is not kept up to date. Raises ChangeRequest (`generation_not_searchable`)."""
    if generation.state not in FOLLOWING:
        raise ChangeRequest(
            f"The generation {generation.public_id} is {generation.state}: it is not searched. "
            "Name another one, or none for the live one.",
            code="generation_not_searchable",
            param="generation",
        )


def places(connection: Connection, numbers: Sequence[int]) -> dict[int, Place]:
    """How far each of these generations is; those that are gone or not followed are left out."""
    found: dict[int, Place] = {}
    for start in range(0, len(numbers), 5_000):
        rows = connection.execute(_places(), {"numbers": list(numbers[start : start + 5_000])})
        found.update({row.id: Place(row.through, row.seq) for row in rows})
    return found


def require_place(connection: Connection, generation: Generation) -> Place:
    """How far a generation is. Raises NotThere when its store is gone, and as `require_searchable` does."""
    place = places(connection, [generation.id]).get(generation.id)
    if place is None:
        live_generation(connection, generation.store_id)
        now = find_generation(connection, [generation.store_id], generation.public_id)
        assert now is not None
        require_searchable(now)
        raise AssertionError
    return place


@cache
def _places() -> sa.Select[Any]:
    # Built once: each query asks.
    through = sa.case((_generations.state == "live", _stores.seq), else_=_generations.filled_through)
    return (
        sa.select(_generations.id, through.label("through"), _stores.seq)
        .join(schema.stores, _stores.id == _generations.store_id)
        .where(_generations.id.in_(sa.bindparam("numbers", expanding=True)), _generations.state.in_(FOLLOWING))
    )


def _listed(
    connection: Connection, states: Sequence[GenerationState] | None, *conditions: sa.ColumnElement[bool]
) -> list[Generation]:
    query = sa.select(schema.generations).where(*conditions)
    if states is not None:
        query = query.where(_generations.state.in_(states))
    return [_generation(row) for row in connection.execute(query.order_by(_generations.id))]


@cache
def _live_by_store() -> sa.Select[Any]:
    mine = _generations.store_id == sa.bindparam("id")
    return sa.select(schema.generations).where(mine, _generations.state == "live")


def _generation(row: Row[Any]) -> Generation:
    return Generation(**row._mapping)
