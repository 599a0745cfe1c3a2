"""Questions that were asked of a generation beside the live one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.catalog import schema
from rag.catalog.generations import all_generations
from rag.catalog.records import Generation, GenerationState

MIRRORED: tuple[GenerationState, ...] = ("ready", "standby")
"""States in which a generation can be asked as well."""
KEPT = 1_000
"""Questions of one generation, the newest ones."""

_rows = schema.mirrored_questions


@dataclass(frozen=True)
class Comparison:
    """One question: the share of the hits that both generations have, in [0, 1], and how long each took; or the code of
    the error because of which the mirrored one found nothing."""

    generation_id: int
    live_id: int
    live_ms: float
    overlap: float | None = None
    mirrored_ms: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of searching."""

    p50: float
    p95: float


@dataclass(frozen=True)
class Mirrored:
    """What is kept of one generation beside the one that is live now. The overlap is the mean over questions; it and
    the times are of those that both answered, None where there are none."""

    questions: int
    overlap: float | None
    live_ms: Latency | None
    mirrored_ms: Latency | None
    errors: Mapping[str, int]
    """How often the mirrored one could not answer, by code."""


def wanting(connection: Connection) -> list[Generation]:
    """The generations that want a share of the questions, of every store and tenant."""
    return [found for found in all_generations(connection, MIRRORED) if found.mirror_share > 0]


def set_share(connection: Connection, generation: Generation, share: float) -> None:
    """Let a generation be asked so many of the questions."""
    mine = sa.update(schema.generations).where(schema.generations.c.id == generation.id)
    connection.execute(mine.values(mirror_share=share))


def add(connection: Connection, rows: Sequence[Comparison]) -> None:
    """Keep comparisons of generations that are still there, and of each the newest ones alone."""
    numbers = {row.generation_id for row in rows}
    query = sa.select(schema.generations.c.id).where(schema.generations.c.id.in_(numbers))
    there = set(connection.execute(query).scalars())
    values = [asdict(row) for row in rows if row.generation_id in there]
    if values:
        connection.execute(sa.insert(_rows), values)
    for number in there:
        mine = _rows.c.generation_id == number
        last = sa.select(_rows.c.id).where(mine).order_by(_rows.c.id.desc()).offset(KEPT).limit(1).scalar_subquery()
        connection.execute(sa.delete(_rows).where(mine, _rows.c.id <= last))


def summary(connection: Connection, generation: Generation, live: Generation) -> Mirrored | None:
    """What mirroring a generation beside this live one has shown; None where no question was mirrored."""
    columns = (_rows.c.overlap, _rows.c.live_ms, _rows.c.mirrored_ms, _rows.c.error)
    query = sa.select(*columns).where(_rows.c.generation_id == generation.id, _rows.c.live_id == live.id)
    rows = connection.execute(query).all()
    if not rows:
        return None
    both = [row for row in rows if row.error is None]
    return Mirrored(
        questions=len(rows),
        overlap=float(np.mean([row.overlap for row in both])) if both else None,
        live_ms=_latency([row.live_ms for row in both]),
        mirrored_ms=_latency([row.mirrored_ms for row in both]),
        errors=Counter(row.error for row in rows if row.error is not None),
    )


def _latency(values: Sequence[float]) -> Latency | None:
    if not values:
        return None
    p50, p95 = np.percentile(values, (50, 95))
    return Latency(float(p50), float(p95))
