"""Drift: what each day came to, and the canaries. For administrators: it tells of everybody's questions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query

from api.dependencies import NamedStore, OpenBackend, new_router, requires
from api.schemas.drift import CanariesObject, DriftDay, DriftObject, SetCanaries
from ingest import drift as watching
from rag.backend import Backend
from rag.catalog import drift
from rag.catalog.drift import Canaries
from rag.catalog.records import DAY, Store
from rag.evaluation.drift import FALSE_ALARMS

router = new_router(tags=["drift"])
PATH = "/v1/vector_stores/{vector_store_id}/drift"


@router.get(PATH, dependencies=[requires("admin")])
def get_drift(store: NamedStore, backend: OpenBackend, days: Annotated[int, Query(ge=1, le=365)] = 30) -> DriftObject:
    """What the days that are over came to, and their alarms."""
    today = int(time.time()) // DAY
    with backend.database.read() as connection:
        found = drift.days(connection, store.id, today - days, today)
    return _object(backend, store, dict(reversed(found.items())))


@router.post(PATH, dependencies=[requires("admin")])
def look_at_today(store: NamedStore, backend: OpenBackend) -> DriftObject:
    """What today comes to so far. Nothing is written down."""
    return _object(backend, store, {int(time.time()) // DAY: watching.look(backend, store)})


@router.put(f"{PATH}/canaries", dependencies=[requires("admin")])
def set_canaries(body: SetCanaries, store: NamedStore, backend: OpenBackend) -> DriftObject:
    """Ask the questions of a set now, and each day again. In place of those before; null asks none."""
    if body.question_set is None:
        watching.thaw(backend, store)
    else:
        watching.freeze(backend, store, body.question_set)
    return get_drift(store, backend)


def _object(backend: Backend, store: Store, found: Mapping[int, Mapping[str, Any]]) -> DriftObject:
    with backend.database.read() as connection:
        frozen = drift.canaries(connection, store)
    days = [DriftDay(day=watching.date_of(day), **body) for day, body in found.items()]
    return DriftObject(
        vector_store_id=store.public_id,
        canaries=_canaries(frozen) if frozen else None,
        false_alarms=round(FALSE_ALARMS, 4),
        alarms=days[0].alarms if days else [],
        days=days,
    )


def _canaries(frozen: Canaries) -> CanariesObject:
    return CanariesObject(question_set=frozen.name, questions=len(frozen.hits), frozen_at=frozen.frozen_at)
