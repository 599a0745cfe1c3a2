"""Filters against a naive evaluation of their meaning, document by document."""

from __future__ import annotations

import doctest
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import filters
from indexes.errors import ChangeRequest
from indexes.filters import AnyTag, AttributeTable, Comparison, Compound, Filter, parse_filter, permitted
from tests.contracts.filters import holds as fits
from tests.contracts.filters import random_documents, random_filter

KEYS = ["lang", "year", "ok", "mixed", "rare key'; DROP TABLE--"]
VALUES = ["", "de", "en", "1", "true", "é", "z\x00", 0, 1, 1.0, 2, -1.5, 2024, 1e300, True, False]
ORDERED = {"gt": "__gt__", "gte": "__ge__", "lt": "__lt__", "lte": "__le__"}

values = st.sampled_from(VALUES)
attributes = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
comparisons = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["eq", "ne", *ORDERED]), "key": st.sampled_from(KEYS), "value": values}
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["in", "nin"]),
            "key": st.sampled_from(KEYS),
            "value": st.lists(values, max_size=4),
        }
    ),
)
trees = st.recursive(
    comparisons,
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["and", "or"]), "filters": st.lists(inner, max_size=3)}
    ),
    max_leaves=6,
)


def test_examples() -> None:
    assert doctest.testmod(filters).failed == 0


def kind(value: object) -> str:
    return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"


def same(one: object, other: object) -> bool:
    return kind(one) == kind(other) and one == other


def holds(tree: dict, document: dict) -> bool:
    """The meaning of a filter, for one document."""
    operation = tree["type"]
    if operation in ("and", "or"):
        parts = [holds(part, document) for part in tree["filters"]]
        return all(parts) if operation == "and" else any(parts)
    wanted = tree["value"] if operation in ("in", "nin") else [tree["value"]]
    if operation in ("ne", "nin"):
        return tree["key"] not in document or not any(same(document[tree["key"]], value) for value in wanted)
    if tree["key"] not in document:
        return False
    value = document[tree["key"]]
    if operation in ("eq", "in"):
        return any(same(value, other) for other in wanted)
    return (
        kind(value) == kind(wanted[0])
        and {
            "gt": value > wanted[0],
            "gte": value >= wanted[0],
            "lt": value < wanted[0],
            "lte": value <= wanted[0],
        }[operation]
    )


def fault(tree: dict, documents: dict[int, dict]) -> set[str]:
    """The codes that one may answer with; none for a filter that must work."""
    if tree["type"] in ("and", "or"):
        return set().union(*(fault(part, documents) for part in tree["filters"]))
    there = {kind(document[tree["key"]]) for document in documents.values() if tree["key"] in document}
    if not there:
        return {"unknown_filter_key"}
    wanted = tree["value"] if isinstance(tree["value"], list) else [tree["value"]]
    unordered = tree["type"] in ORDERED and kind(wanted[0]) == "boolean"
    return {"filter_type"} if unordered or any(kind(value) not in there for value in wanted) else set()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 120), st.none() | attributes), max_size=150),
    st.lists(trees, min_size=1, max_size=4),
)
def test_matching_means_what_the_naive_reading_says(changes: list, asked: list[dict]) -> None:
    table, documents = AttributeTable(), {}
    for document_id, given_attributes in changes:
        if given_attributes is None:
            table.remove(document_id)
            documents.pop(document_id, None)
        else:
            table.set(document_id, given_attributes)
            documents[document_id] = given_attributes
    assert len(table) == len(documents)
    for tree in asked:
        faults = fault(tree, documents) if documents else set()
        if faults:
            with pytest.raises(ChangeRequest) as caught:
                table.matching(parse_filter(tree))
            assert caught.value.code in faults
            assert caught.value.param == "filters"
        else:
            found = table.matching(parse_filter(tree))
            assert found.dtype == np.int64
            assert found.tolist() == sorted(id_ for id_, document in documents.items() if holds(tree, document))


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_with_tags(seed: int) -> None:
    rng = random.Random(seed)
    documents = random_documents(rng, 60)
    table = AttributeTable()
    for id_, document in documents.items():
        table.set(id_, {"other": 1}, {"other"})
        table.set(id_, document.attributes, document.tags)
    for _ in range(50):
        condition = random_filter(rng, documents) or Compound("and", ())
        expected = sorted(id_ for id_, document in documents.items() if fits(condition, document))
        assert table.matching(condition).tolist() == expected


def test_without_a_fitting_tag_there_is_nothing() -> None:
    table = AttributeTable()
    table.set(1, {"x": 1})
    table.set(2, {"x": 1}, ["eng"])
    table.set(3, {"x": 2}, ["eng", "x"])
    everything = Comparison("x", "gte", 0.0)
    assert table.matching(everything).tolist() == [1, 2, 3]
    for tags, ids in ((["eng"], [2, 3]), (["x", "sales"], [3]), (["sales"], []), ([], []), ([""], [])):
        assert table.matching(permitted(tags, everything)).tolist() == ids
        assert table.matching(permitted(tags, None)).tolist() == ids
    table.set(3, {"x": 2})
    assert table.matching(AnyTag(frozenset(["x", "eng"]))).tolist() == [2]
    with pytest.raises(ChangeRequest, match="Known attributes: 'x'"):
        table.matching(Comparison("eng", "eq", True))
    with pytest.raises(ChangeRequest):
        parse_filter({"type": "any_tag", "tags": ["eng"]})


def test_what_one_may_not_see_does_not_show_in_errors() -> None:
    def told(table: AttributeTable, condition: Filter) -> str:
        with pytest.raises(ChangeRequest) as caught:
            table.matching(permitted(["eng"], condition))
        return caught.value.message

    tables = AttributeTable(), AttributeTable()
    for table in tables:
        table.set(1, {"shown": 1}, ["eng"])
    tables[1].set(2, {"secret": "x", "shown": "text"}, ["sales"])
    for condition in (Comparison("secret", "eq", "x"), Comparison("shown", "eq", "text")):
        assert told(tables[0], condition) == told(tables[1], condition)
        assert tables[1].matching(condition).tolist() == [2]
    assert "Known attributes: 'shown'." in told(tables[1], Comparison("secret", "eq", "x"))


def test_many_documents_with_rare_and_common_keys() -> None:
    """Rows grow, are given back and used again; keys cross from rare to common."""
    table, documents = AttributeTable(), {}
    rng = np.random.default_rng(0)
    for step in range(3000):
        document_id = int(rng.integers(1, 700))
        if rng.random() < 0.3:
            table.remove(document_id)
            documents.pop(document_id, None)
            continue
        documents[document_id] = {"n": step, "s": f"v{step % 50}"}
        if document_id % 40 == 0 or step > 2000:
            documents[document_id] |= {"rare": bool(step % 2)}
        if step % 5 == 0:
            documents[document_id] |= {f"only{document_id}": 1}
        table.set(document_id, documents[document_id])
    for tree in (
        {"type": "gt", "key": "n", "value": 1500},
        {"type": "in", "key": "s", "value": ["v1", "v49", "nowhere"]},
        {"type": "lte", "key": "s", "value": "v3"},
        {"type": "eq", "key": "rare", "value": True},
        {"type": "nin", "key": "rare", "value": [True]},
    ):
        assert table.matching(parse_filter(tree)).tolist() == sorted(
            id_ for id_, document in documents.items() if holds(tree, document)
        )


def test_a_boolean_is_no_number() -> None:
    table = AttributeTable()
    table.set(1, {"x": True})
    table.set(2, {"x": 1})
    assert table.matching(Comparison("x", "eq", True)).tolist() == [1]
    assert table.matching(Comparison("x", "eq", 1.0)).tolist() == [2]
    assert table.matching(Comparison("x", "gte", 0.0)).tolist() == [2]
    assert table.matching(Compound("or", ())).tolist() == []
    assert table.matching(Compound("and", ())).tolist() == [1, 2]


def test_an_empty_table_answers_nothing() -> None:
    table = AttributeTable()
    assert table.matching(Comparison("x", "ne", "y")).tolist() == []
    table.set(1, {"x": "y"})
    table.remove(1)
    table.remove(1)
    assert table.matching(Comparison("x", "gt", True)).tolist() == []


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    table = AttributeTable()
    table.set(1, {f"key{number:02}": 1 for number in range(25)})
    with pytest.raises(ChangeRequest, match=r"'key00', .*'key19' and 5 more") as caught:
        table.matching(Comparison("key", "eq", 1.0))
    assert caught.value.code == "unknown_filter_key"
    assert "key20" not in caught.value.message
    table.remove(1)
    table.set(2, {"other": "x"})
    with pytest.raises(ChangeRequest, match="Known attributes: 'other'"):
        table.matching(Comparison("key00", "eq", 1.0))


@pytest.mark.parametrize("value", [None, [1], {}, math.nan, math.inf, 10**400])
def test_a_bad_attribute_changes_nothing(value: object) -> None:
    table = AttributeTable()
    table.set(1, {"a": 1})
    with pytest.raises(ChangeRequest, match="'b'") as caught:
        table.set(1, {"a": 2, "b": value})
    assert caught.value.code == "invalid_attribute"
    assert table.matching(Comparison("a", "eq", 1.0)).tolist() == [1]


def nested(depth: int) -> dict:
    tree: dict = {"type": "eq", "key": "a", "value": 1}
    for _ in range(depth - 1):
        tree = {"type": "and", "filters": [tree]}
    return tree


EQ = {"type": "eq", "key": "a", "value": 1}


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (None, "filters"),
        ([EQ], "filters"),
        ("a = 1", "filters"),
        ({}, "filters.type"),
        ({**EQ, "type": "like"}, "filters.type"),
        ({**EQ, "type": ["eq"]}, "filters.type"),
        ({**EQ, "type": "AND"}, "filters.type"),
        ({**EQ, "extra": 1}, "filters"),
        ({**EQ, 7: 1}, "filters"),
        ({"type": "eq", "key": "a"}, "filters"),
        ({"type": "and"}, "filters"),
        ({"type": "and", "filters": EQ}, "filters.filters"),
        ({"type": "and", "filters": [EQ], "key": "a"}, "filters"),
        ({**EQ, "key": ""}, "filters.key"),
        ({**EQ, "key": 5}, "filters.key"),
        ({**EQ, "value": None}, "filters.value"),
        ({**EQ, "value": [1]}, "filters.value"),
        ({**EQ, "value": {}}, "filters.value"),
        ({**EQ, "value": math.nan}, "filters.value"),
        ({**EQ, "value": 10**400}, "filters.value"),
        ({**EQ, "type": "in"}, "filters.value"),
        ({**EQ, "type": "in", "value": "ab"}, "filters.value"),
        ({"type": "or", "filters": [EQ, {**EQ, "type": "nin", "value": [1, None]}]}, "filters.filters[1].value[1]"),
        (nested(17), "filters" + ".filters[0]" * 16),
        ({"type": "or", "filters": [EQ] * 500}, "filters.filters[499]"),
        (nested(5000), "filters" + ".filters[0]" * 16),
    ],
)
def test_what_is_not_a_filter_is_refused_by_place(data: object, place: str) -> None:
    with pytest.raises(ChangeRequest) as caught:
        parse_filter(data)
    assert caught.value.code == "invalid_filter"
    assert caught.value.param == "filters"
    assert f"at {place}:" in caught.value.message


def test_the_limits_themselves_are_allowed() -> None:
    parse_filter(nested(16))
    assert isinstance(parse_filter({"type": "or", "filters": [EQ] * 499}), Compound)
    assert parse_filter(EQ) == Comparison("a", "eq", 1.0)
    assert parse_filter({**EQ, "type": "in", "value": ["x", 2, True]}) == Comparison("a", "in", ("x", 2.0, True))
