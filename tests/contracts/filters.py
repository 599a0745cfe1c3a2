"""Random filters over random documents, and what a filter means, worked out document by document."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from indexes.filters import AnyTag, Comparison, Compound, Filter, Scalar, permitted

KEYS = (
    *("lang", "year", "ok", "mixed", "a.b", "a", "x[0]", "x[]", 'say "hi"', "it's; DROP TABLE--", "naïve ключ 鍵"),
    *("", " ", "key", "value", "attributes", "$ref", "\ud800", "nul\x00l", "A", "a\\b", "{}", "*"),
)
STRINGS = (
    *("", "de", "en", "EN", "1", "1.0", "true", "null", "é", "e\u0301", "z\x00", "\ud800", "😀", "\uffff", '["a", 1]'),
    *("abcdef", "abcdefg", "abcdef\x00", "abcdef\x00\x00g", "2024-05-17", "2024-05-18", "2024-05-17T10:00:00"),
    *("2024-05-17T10:00:00Z", "2024-05-17T10:00:00.5Z", "2024-05-17T10:00:07Z", "2024-05-17T10:00:00Z\x00", "é" * 30),
)
NUMBERS = (0, -0.0, 1, 1.0, 2, -1.5, 0.1, 0.30000000000000004, 0.3, 2024, 2**53, 2**53 + 1, 2**63, 1e300, -1e-300)
TAGS = ("eng", "sales", "a.b", "ENG", "", "é", "\ud800")


@dataclass(frozen=True)
class Described:
    """What a filter looks at in a document."""

    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


def kind(value: Scalar) -> str:
    return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"


def holds(filter: Filter | None, document: Described) -> bool:
    """The meaning of a filter, for one document."""
    if filter is None:
        return True
    if isinstance(filter, AnyTag):
        return bool(filter.tags & document.tags)
    if isinstance(filter, Compound):
        parts = [holds(part, document) for part in filter.filters]
        return all(parts) if filter.type == "and" else any(parts)
    return compares(filter, document.attributes)


def compares(comparison: Comparison, attributes: Mapping[str, Scalar]) -> bool:
    wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    there = comparison.key in attributes
    value = attributes.get(comparison.key, "")
    same = there and any(kind(value) == kind(one) and as_stored(value) == as_stored(one) for one in wanted)
    if comparison.type in ("eq", "in"):
        return same
    if comparison.type in ("ne", "nin"):
        return not same
    if not there or kind(value) != kind(wanted[0]):
        return False
    one, other = as_stored(value), as_stored(wanted[0])
    return {"gt": one > other, "gte": one >= other, "lt": one < other, "lte": one <= other}[comparison.type]


def as_stored(value: Scalar) -> Scalar:
    return value if isinstance(value, str | bool) else float(value)


def random_documents(rng: random.Random, count: int) -> dict[int, Described]:
    """By id. Some have many attributes, some none, some no tag."""
    ids = rng.sample(range(1, 10 * count), count)
    return {id_: Described(_random_attributes(rng), frozenset(rng.sample(TAGS, rng.randint(0, 3)))) for id_ in ids}


def _random_attributes(rng: random.Random) -> dict[str, Scalar]:
    keys = rng.sample(KEYS, rng.randint(0, 8))
    return {key: rng.choice((rng.choice(STRINGS), rng.choice(NUMBERS), rng.random() < 0.5)) for key in keys if key}


def random_filter(rng: random.Random, documents: Mapping[int, Described]) -> Filter | None:
    """A tree that fits the documents (no unknown key, no type that is nowhere), within a caller's tags or not: then it
    fits those that the caller sees."""
    tags = frozenset(rng.sample((*TAGS, "nobody"), rng.randint(0, 3))) if rng.random() < 0.5 else None
    seen = [document for document in documents.values() if tags is None or tags & document.tags]
    known: dict[str, list[Scalar]] = {}
    for document in seen:
        for key, value in document.attributes.items():
            known.setdefault(key, []).append(value)
    condition = _random_tree(rng, known, 3) if known and rng.random() < 0.9 else None
    return condition if tags is None else permitted(tags, condition)


def _random_tree(rng: random.Random, known: Mapping[str, list[Scalar]], depth: int) -> Filter:
    if depth and rng.random() < 0.6:
        parts = tuple(_random_tree(rng, known, depth - 1) for _ in range(rng.randint(0, 3)))
        return Compound(rng.choice(("and", "or")), parts)
    key = rng.choice(sorted(known))
    kinds = sorted({kind(value) for value in known[key]})

    def value(kinds: list[str]) -> Scalar:
        wanted = rng.choice(kinds)
        return rng.choice({"string": STRINGS, "number": NUMBERS, "boolean": (True, False)}[wanted])

    operation = rng.choice(("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"))
    if operation in ("in", "nin"):
        return Comparison(key, operation, tuple(value(kinds) for _ in range(rng.randint(0, 3))))
    if operation not in ("eq", "ne"):
        kinds = [kind for kind in kinds if kind != "boolean"]
    return Comparison(key, operation if kinds else "eq", value(kinds or ["boolean"]))
