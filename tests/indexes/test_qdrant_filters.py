"""Filters in the engines themselves, in a short form of `tests.campaigns.filters`; a wrong compiler is noticed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from indexes.errors import ChangeRequest
from indexes.filters import AnyTag, Comparison, Compound
from tests.campaigns.filters import open_graph, recall, run
from tests.contracts.filters import NUMBERS, STRINGS, compares
from tests.contracts.vector_index import unit
from tests.qdrant import open_qdrant

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'rag[qdrant]'")

from qdrant_client import models

from indexes import qdrant_filters
from indexes.qdrant_collection import Leg, Point, Scope

KINDS = ("memory", "engine", "server")


@pytest.mark.parametrize("kind", KINDS)
def test_random_filters_find_what_brute_force_finds(kind: str, tmp_path: Path) -> None:
    run(cases=100, seed=7, folder=tmp_path, kinds=(kind,), documents=30)


@pytest.mark.parametrize("kind", KINDS)
def test_every_order_of_every_two_values(kind: str, tmp_path: Path) -> None:
    every_order(kind, tmp_path)


def every_order(kind: str, folder: Path) -> None:
    values = dict(enumerate([*STRINGS, *NUMBERS, True, False], 1))
    with open_qdrant(kind, folder) as qdrant:
        collection = qdrant.collection()
        points = [Point(id_, id_, id_, unit(1)[0], attributes={"x": value, "y": 0}) for id_, value in values.items()]
        collection.put(Scope(1, 1), points)
        for value, order in itertools.product([*STRINGS, *NUMBERS], ("gt", "gte", "lt", "lte", "eq", "ne")):
            condition = Comparison("x", order, value)
            [hits] = collection.search(Scope(1, 1), [Leg(unit(1)[0], 99)], condition)
            expected = [id_ for id_, other in values.items() if compares(condition, {"x": other})]
            assert sorted(hits.ids.tolist()) == expected, condition


def test_what_has_no_order_is_refused() -> None:
    for value in (True, "x" * 65, "é" * 33):
        with pytest.raises(ChangeRequest) as caught:
            qdrant_filters.compiled(Comparison("x", "gte", value))
        assert caught.value.code == "filter_type"
        qdrant_filters.compiled(Comparison("x", "ne", value))


def test_a_graph_finds_k_whenever_there_are_k(tmp_path: Path) -> None:
    with open_qdrant("engine", tmp_path) as qdrant:
        assert recall(partial(open_graph, qdrant), unit, cases=100, seed=7) >= 0.98


def all_of_nothing(compiled: Callable[..., Any], filter: Any) -> Any:
    """An empty `should`, which means everything."""
    if isinstance(filter, Compound) and filter.type == "or":
        return models.Filter(should=[qdrant_filters.compiled(part) for part in filter.filters])
    return compiled(filter)


def any_instead_of_all(compiled: Callable[..., Any], filter: Any) -> Any:
    if isinstance(filter, Compound) and filter.filters:
        return models.Filter(should=[qdrant_filters.compiled(part) for part in filter.filters])
    return compiled(filter)


def tags_ignored(compiled: Callable[..., Any], filter: Any) -> Any:
    return models.Filter() if isinstance(filter, AnyTag) else compiled(filter)


def no_tags_see_everything(compiled: Callable[..., Any], filter: Any) -> Any:
    return models.Filter() if isinstance(filter, AnyTag) and not filter.tags else compiled(filter)


def other_than_needs_the_key(compiled: Callable[..., Any], filter: Any) -> Any:
    made = compiled(filter)
    if isinstance(filter, Comparison) and filter.type in ("ne", "nin"):
        prefix = models.MatchPrefix(prefix=json.dumps(filter.key))
        made.must = [models.FieldCondition(key="attributes", match=prefix)]
    return made


def one_key_for_all(compiled: Callable[..., Any], filter: Any) -> Any:
    return compiled(Comparison("a", filter.type, filter.value) if isinstance(filter, Comparison) else filter)


def equal_is_greater(compiled: Callable[..., Any], filter: Any) -> Any:
    changed = {"gt": "gte", "lt": "lte"}
    if isinstance(filter, Comparison) and filter.type in changed:
        filter = replace(filter, type=changed[filter.type])
    return compiled(filter)


def first_bytes_decide(compiled: Callable[..., Any], filter: Any) -> Any:
    made = compiled(filter)
    if isinstance(filter, Comparison) and isinstance(filter.value, str) and made.should:
        made.should = made.should[:-1]
    return made


def longer_is_not_greater(compiled: Callable[..., Any], filter: Any) -> Any:
    made = compiled(filter)
    if isinstance(filter, Comparison) and filter.type == "gt" and made.should:
        decided = made.should[-1].must[-1]
        decided.should = decided.should[:-16] or [models.HasIdCondition(has_id=[])]
    return made


def shorter_is_not_less(compiled: Callable[..., Any], filter: Any) -> Any:
    made = compiled(filter)
    if isinstance(filter, Comparison) and filter.type == "lt" and made.should:
        decided = made.should[-1].must[-1]
        decided.should = decided.should[:-1] or [models.HasIdCondition(has_id=[])]
    return made


@pytest.mark.parametrize(
    "liar",
    [
        *(all_of_nothing, any_instead_of_all, tags_ignored, no_tags_see_everything, other_than_needs_the_key),
        *(one_key_for_all, equal_is_greater, first_bytes_decide, longer_is_not_greater, shorter_is_not_less),
    ],
    ids=lambda liar: liar.__name__,
)
def test_a_wrong_compiler_is_caught(liar: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = qdrant_filters.compiled
    monkeypatch.setattr("indexes.qdrant_filters.compiled", lambda filter: liar(honest, filter))
    monkeypatch.setattr("indexes.qdrant_collection.compiled", lambda filter: liar(honest, filter))
    with pytest.raises(AssertionError):
        all_checks(tmp_path)


def all_checks(folder: Path) -> None:
    run(cases=100, seed=7, folder=folder / "random", kinds=("engine",), documents=30)
    every_order("engine", folder / "order")
