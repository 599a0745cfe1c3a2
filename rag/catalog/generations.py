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
from rag.catalog.records import (
    FILLED,
    FOLLOWING,
    Filled,
    Generation,
    GenerationEvent,
    GenerationState,
    Place,
    Store,
    Stretch,
)

_generations, _stores, _versions = schema.generations.c, schema.stores.c, schema.versions.c


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
    return live_place(connection, store_id)[0]


def live_place(connection: Connection, store_id: int) -> tuple[Generation, Place]:
    """The generation that answers and how far it is, in one query. Raises as `live_generation`."""
    row = connection.execute(_live_by_store(), {"id": store_id}).first()
    if row is None:
        raise NotThere("The vector store was deleted meanwhile.", code="vector_store_not_found")
    *columns, seq = row
    return Generation(*columns), Place(seq, seq)


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


def all_generations(
    connection: Connection,
    states: Sequence[GenerationState] | None = None,
    store_ids: Sequence[int] | None = None,
) -> list[Generation]:
    """The same of these stores (None: of every store and tenant)."""
    mine = sa.true() if store_ids is None else _generations.store_id.in_(store_ids)
    return _listed(connection, states, mine)


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


# ---- filling ---------------------------------------------------------------------------------------------------------


def lacking(connection: Connection, worker: int) -> list[Generation]:
    """The generations that lack something and that this worker may fill, oldest first."""
    lacks = sa.or_(_generations.state == "building", _generations.filled_through < _stores.seq)
    free = sa.or_(_generations.worker_id.is_(None), _generations.worker_id == worker)
    query = (
        sa.select(schema.generations)
        .join(schema.stores, _stores.id == _generations.store_id)
        .where(_generations.state.in_(FILLED), _generations.paused == sa.false(), lacks, free)
    )
    return [_generation(row) for row in connection.execute(query.order_by(_generations.id))]


def take(connection: Connection, generation: Generation, worker: int) -> Generation | None:
    """Let a worker alone fill a generation, which is returned as it is then. None when another one does, or it is not
    to be filled any more."""
    free = sa.or_(_generations.worker_id.is_(None), _generations.worker_id == worker)
    if not _changed(connection, generation, {"worker_id": worker}, _may_be_filled(), free):
        return None
    return find_generation(connection, [generation.store_id], generation.public_id)


def is_held(connection: Connection, generation: Generation, worker: int) -> bool:
    """Whether a generation is still this worker's to fill."""
    mine = sa.select(_generations.id).where(_generations.id == generation.id, _generations.worker_id == worker)
    return connection.execute(mine.where(_may_be_filled())).first() is not None


def next_stretch(connection: Connection, generation: Generation, versions: int, characters: int) -> Stretch:
    """What a generation lacks next: so many versions, and about so many characters, at most; one at least."""
    seq = connection.execute(sa.select(_stores.seq).where(_stores.id == generation.store_id)).scalar_one()
    query = (
        sa.select(_versions.id, _versions.published_seq, _versions.characters)
        .where(_versions.store_id == generation.store_id, schema.ANSWERS, ~_has(generation))
        .order_by(_versions.published_seq, _versions.id)
        .limit(versions + 1)
    )
    rows = connection.execute(query).all()
    taken, size = 0, 0
    while taken < min(len(rows), versions) and (taken == 0 or size + rows[taken].characters <= characters):
        size += rows[taken].characters
        taken += 1
    ids = [row.id for row in rows[:taken]]
    if taken == len(rows):
        return Stretch(ids, size, seq, 0, ends=True)
    last, following = rows[taken - 1], rows[taken]
    within = last.id if following.published_seq == last.published_seq else 0
    return Stretch(ids, size, following.published_seq - 1, within, ends=False)


def advance(
    connection: Connection, generation: Generation, worker: int, stretch: Stretch, characters_per_second: float | None
) -> bool:
    """Note that a stretch is filled; one that then lacks nothing is ready, and its worker's no longer.

    False, and nothing noted, when it is no longer the worker's.
    """
    values: dict[str, Any] = {"filled_through": stretch.through, "filled_within": stretch.within}
    if characters_per_second is not None:
        values["characters_per_second"] = characters_per_second
    if stretch.ends:
        values["worker_id"] = None
    if not _changed(connection, generation, values, _may_be_filled(), _generations.worker_id == worker):
        return False
    if stretch.ends and _enter(connection, generation, "ready", {}, ("building",)):
        note_event(connection, generation, "ready", "")
    return True


def fail(connection: Connection, generation: Generation, worker: int, code: str, message: str) -> bool:
    """End the filling of a generation with a typed error. False when it is no longer the worker's."""
    if not is_held(connection, generation, worker):
        return False
    values = {"error_code": code[:32], "error_message": message[:2000], "worker_id": None}
    _enter(connection, generation, "failed", values, FILLED)
    note_event(connection, generation, "failed", "", {"code": code, "message": message[:2000]})
    return True


def filled(connection: Connection, generation: Generation) -> Filled:
    """How much of its store a generation holds."""
    seq = connection.execute(sa.select(_stores.seq).where(_stores.id == generation.store_id)).scalar_one()
    has = sa.true() if generation.state == "live" else _has(generation)
    query = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(_versions.characters), 0),
        sa.func.coalesce(sa.func.sum(sa.case((has, 1), else_=0)), 0),
        sa.func.coalesce(sa.func.sum(sa.case((has, _versions.characters), else_=0)), 0),
    ).where(_versions.store_id == generation.store_id, schema.ANSWERS)
    total, characters_total, number, characters = connection.execute(query).one()
    lag = 0 if generation.state == "live" else seq - generation.filled_through
    return Filled(int(number), total, int(characters), int(characters_total), lag)


def _has(generation: Generation) -> sa.ColumnElement[bool]:
    """Of visible versions, those that a generation holds."""
    through, within = generation.filled_through, generation.filled_within
    partly = sa.and_(_versions.published_seq == through + 1, _versions.id <= within)
    return sa.or_(_versions.published_seq <= through, partly)


def _may_be_filled() -> sa.ColumnElement[bool]:
    return sa.and_(_generations.state.in_(FILLED), _generations.paused == sa.false())


# ---- states ----------------------------------------------------------------------------------------------------------


def set_paused(connection: Connection, generation: Generation, paused: bool) -> bool:
    """Stop or go on filling a generation. False where it is so already, or is not filled at all."""
    other = _generations.paused != paused
    return _changed(connection, generation, {"paused": paused}, other, _generations.state.in_(FILLED))


def begin_again(connection: Connection, generation: Generation, *, from_nothing: bool) -> bool:
    """Fill a failed generation again; `from_nothing` looks at everything that it was given before. False for one that
    has not failed."""
    values: dict[str, Any] = {"error_code": None, "error_message": None, "paused": False}
    if from_nothing:
        values |= {"filled_through": 0, "filled_within": 0}
    return _enter(connection, generation, "building", values, ("failed",))


def make_live(connection: Connection, generation: Generation, instead_of: Generation) -> None:
    """Let a generation answer instead of the one that does, which is kept up to date as a standby."""
    seq = connection.execute(sa.select(_stores.seq).where(_stores.id == generation.store_id)).scalar_one()
    through = {"filled_through": seq, "filled_within": 0}
    _enter(connection, instead_of, "standby", through, ("live",))
    values = {**through, "worker_id": None, "paused": False, "mirror_share": 0.0}
    _enter(connection, generation, "live", values, ("ready", "standby"))


def newest_standby(connection: Connection, store_id: int) -> Generation | None:
    """The standby that was live last, if there is one."""
    standbys = generations_of(connection, store_id, ("standby",))
    if not standbys:
        return None
    replaced = {event.generation_id: event.id for event in events_of(connection, store_id) if event.event == "replaced"}
    return max(standbys, key=lambda standby: (replaced.get(standby.id, 0), standby.id))


def retire(connection: Connection, generation: Generation) -> bool:
    """Follow a generation no more, for good. False for the live one, or one that is retired already."""
    return _enter(connection, generation, "retired", {"worker_id": None, "paused": False}, (*FILLED, "failed"))


def to_empty(connection: Connection) -> Generation | None:
    """The oldest retired generation that still holds something, if there is one."""
    query = sa.select(schema.generations).where(_generations.state == "retired", _generations.emptied == sa.false())
    row = connection.execute(query.order_by(_generations.id).limit(1)).first()
    return None if row is None else _generation(row)


def note_emptied(connection: Connection, generation: Generation) -> None:
    """Note that nothing of a retired generation is left."""
    _changed(connection, generation, {"emptied": True})


def note_event(
    connection: Connection, generation: Generation, event: str, caller: str, body: Mapping[str, Any] | None = None
) -> None:
    """Keep what was done to a generation."""
    values = {
        "store_id": generation.store_id,
        "generation_id": generation.id,
        "event": event,
        "caller": caller,
        "body": dict(body or {}),
        "created_at": int(time.time()),
    }
    connection.execute(sa.insert(schema.generation_events).values(values))


def events_of(connection: Connection, store_id: int) -> list[GenerationEvent]:
    """What was done to the generations of a store, in order."""
    columns = [column for column in schema.generation_events.c if column.name != "store_id"]
    query = sa.select(*columns).where(schema.generation_events.c.store_id == store_id)
    return [GenerationEvent(**row._mapping) for row in connection.execute(query.order_by(sa.column("id")))]


def _enter(
    connection: Connection,
    generation: Generation,
    state: GenerationState,
    values: Mapping[str, Any],
    of: Sequence[GenerationState],
) -> bool:
    """Bring a generation from one of these states into another. False where it is in none of them."""
    changed = {**values, "state": state, "changed_at": int(time.time())}
    return _changed(connection, generation, changed, _generations.state.in_(of))


def _changed(
    connection: Connection, generation: Generation, values: Mapping[str, Any], *conditions: sa.ColumnElement[bool]
) -> bool:
    mine = sa.update(schema.generations).where(_generations.id == generation.id, *conditions)
    return connection.execute(mine.values(**values)).rowcount == 1


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
    columns = [_generations[name] for name in Generation.__dataclass_fields__]
    return (
        sa.select(*columns, _stores.seq)
        .join(schema.stores, _stores.id == _generations.store_id)
        .where(mine, _generations.state == "live")
    )


def _generation(row: Row[Any]) -> Generation:
    return Generation(**row._mapping)
