"""Questions that were asked of a generation beside the live one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rag.catalog import schema
from rag.catalog.generations import all_generations
from rag.catalog.records import Generation, GenerationState

MIRRORED: tuple[GenerationState, ...] = ("ready", "standby")
"""States in which a generation can be asked as well."""
KEPT = 10_000
"""Comparisons of one generation, the newest ones."""

_rows = schema.mirrored_questions


@dataclass(frozen=True)
class Comparison:
    """One question: how alike the rankings are (see `rag.evaluation.agreement`), and how long each took."""

    generation_id: int
    live_id: int
    k: int
    """Hits of the longer ranking."""
    overlap: float
    correlation: float | None
    live_ms: float
    mirrored_ms: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of searching."""

    p50: float
    p95: float


@dataclass(frozen=True)
class Mirrored:
    """All that are kept of one generation beside the one that is live now; means over questions."""

    questions: int
    overlap: float
    correlation: float | None
    live_ms: Latency
    mirrored_ms: Latency


def wanting(connection: Connection) -> list[Generation]:
    """The generations that want a share of the questions."""
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
    now = int(time.time())
    values = [{**asdict(row), "created_at": now} for row in rows if row.generation_id in there]
    if values:
        connection.execute(sa.insert(_rows), values)
    for number in there:
        mine = _rows.c.generation_id == number
        last = sa.select(_rows.c.id).where(mine).order_by(_rows.c.id.desc()).offset(KEPT).limit(1).scalar_subquery()
        connection.execute(sa.delete(_rows).where(mine, _rows.c.id <= last))


def summary(connection: Connection, generation: Generation, live: Generation) -> Mirrored | None:
    """What mirroring a generation beside this live one has shown; None where no question was mirrored."""
    columns = (_rows.c.overlap, _rows.c.correlation, _rows.c.live_ms, _rows.c.mirrored_ms)
    query = sa.select(*columns).where(_rows.c.generation_id == generation.id, _rows.c.live_id == live.id)
    found = connection.execute(query).all()
    if not found:
        return None
    overlaps, correlations, live_ms, mirrored_ms = zip(*found, strict=True)
    defined = [value for value in correlations if value is not None]
    return Mirrored(
        questions=len(found),
        overlap=float(np.mean(overlaps)),
        correlation=float(np.mean(defined)) if defined else None,
        live_ms=_latency(live_ms),
        mirrored_ms=_latency(mirrored_ms),
    )


def _latency(values: Sequence[float]) -> Latency:
    p50, p95 = np.percentile(values, (50, 95))
    return Latency(float(p50), float(p95))
