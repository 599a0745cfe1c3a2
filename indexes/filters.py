"""Which documents a filter on attributes allows: OpenAI's grammar, typed, evaluated in memory.

    >>> table = AttributeTable()
    >>> table.set(7, {"year": 2024, "lang": "de"})
    >>> table.set(9, {"year": 2021})
    >>> table.matching(parse_filter({"type": "gte", "key": "year", "value": 2022}))
    array([7])
    >>> table.matching(parse_filter({"type": "ne", "key": "lang", "value": "de"}))
    array([9])

Values are strings, numbers (doubles, as in JSON) and booleans; a boolean never equals a number. `ne` and `nin` match
documents that lack the key, nothing else does. Strings are ordered by code point.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest
from indexes.vector import Ids

Scalar = str | float | bool
Mask = NDArray[np.bool_]

ComparisonType = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
CompoundType = Literal["and", "or"]

DEEPEST = 16
MOST_NODES = 500
MOST_KEYS_NAMED = 20

_Key = tuple[Literal["attribute", "tag"], str]
_Counts = Callable[["_Column"], Sequence[int]]
"""How many values of each kind a column has, among the rows in question."""


@dataclass(frozen=True)
class Comparison:
    """One key against one value, or against a tuple of values for `in` and `nin`."""

    key: str
    type: ComparisonType
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Compound:
    """All (`and`) or any (`or`) of the filters; of none, `and` matches everything and `or` nothing."""

    type: CompoundType
    filters: tuple[Filter, ...]


@dataclass(frozen=True)
class AnyTag:
    """Documents that carry at least one of these permission tags; of none, nothing.

    No request can ask for it: `parse_filter` never makes one. Whoever knows the caller's tags puts it in front. What
    stands beside it in an `and` is judged by these documents only: neither an error nor its words tell of others.
    """

    tags: frozenset[str]


Filter = Comparison | Compound | AnyTag


def permitted(tags: Iterable[str], condition: Filter | None) -> Filter:
    """A request's filter, within what a caller with these permission tags may see: nothing, without any tag."""
    own = AnyTag(frozenset(tags))
    return own if condition is None else Compound("and", (own, condition))


def parse_filter(data: object) -> Filter:
    """The filter that a request's JSON describes.

    Raises ChangeRequest (`invalid_filter`, `param="filters"`) that names the place for anything but
    `{type, key, value}` and `{type: and | or, filters: [...]}`, deeper than 16 or of more than 500 nodes.
    """
    return _Parser().parse(data, "filters", 1)


class _Parser:
    def __init__(self) -> None:
        self._nodes = 0

    def parse(self, data: object, place: str, depth: int) -> Filter:
        self._nodes += 1
        if depth > DEEPEST:
            raise _invalid(place, f"filters may be nested {DEEPEST} deep at most")
        if self._nodes > MOST_NODES:
            raise _invalid(place, f"a filter may have {MOST_NODES} nodes at most")
        if not isinstance(data, Mapping):
            raise _invalid(place, f"an object is expected, not {_json_type(data)}")
        kind = data.get("type")
        if isinstance(kind, str) and kind in get_args(CompoundType):
            return self._compound(cast(CompoundType, kind), data, place, depth)
        if isinstance(kind, str) and kind in get_args(ComparisonType):
            return _comparison(cast(ComparisonType, kind), data, place)
        known = ", ".join((*get_args(ComparisonType), *get_args(CompoundType)))
        raise _invalid(f"{place}.type", f"one of {known} is expected, not {kind!r}")

    def _compound(self, kind: CompoundType, data: Mapping[Any, object], place: str, depth: int) -> Compound:
        _require_fields(data, {"type", "filters"}, place)
        parts = data["filters"]
        if not isinstance(parts, list | tuple):
            raise _invalid(f"{place}.filters", f"a list of filters is expected, not {_json_type(parts)}")
        return Compound(
            kind, tuple(self.parse(part, f"{place}.filters[{at}]", depth + 1) for at, part in enumerate(parts))
        )


def _comparison(kind: ComparisonType, data: Mapping[Any, object], place: str) -> Comparison:
    _require_fields(data, {"type", "key", "value"}, place)
    key, value = data["key"], data["value"]
    if not isinstance(key, str) or not key:
        raise _invalid(f"{place}.key", "the name of an attribute is expected")
    if kind not in ("in", "nin"):
        return Comparison(key, kind, _scalar(value, f"{place}.value"))
    if not isinstance(value, list | tuple):
        raise _invalid(f"{place}.value", f"{kind!r} takes a list of values, not {_json_type(value)}")
    return Comparison(key, kind, tuple(_scalar(item, f"{place}.value[{at}]") for at, item in enumerate(value)))


def _require_fields(data: Mapping[Any, object], expected: set[str], place: str) -> None:
    for field in data:
        if field not in expected:
            raise _invalid(place, f"the field {field!r} is unknown; {', '.join(sorted(expected))} are expected")
    for field in sorted(expected - set(data)):
        raise _invalid(place, f"the field {field!r} is missing")


def _scalar(value: object, place: str) -> Scalar:
    """The value as stored and compared: numbers as doubles."""
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise _invalid(place, "the number is not finite, or too large")
    raise _invalid(place, f"a string, number or boolean is expected, not {_json_type(value)}")


def _invalid(place: str, what: str) -> ChangeRequest:
    return ChangeRequest(f"The filter is not valid at {place}: {what}.", code="invalid_filter", param="filters")


def _json_type(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "an object")


STRING, NUMBER, BOOLEAN = 1, 2, 3
"""The kinds of values."""
_KIND_NAMES = {STRING: "strings", NUMBER: "numbers", BOOLEAN: "booleans"}

_ORDERINGS: dict[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def require_known(
    condition: Filter, has: Callable[[str, int | None], bool], held: Callable[[], Mapping[str, Collection[int]]]
) -> None:
    """Refuse what the documents at hand cannot be compared with.

    `has` answers whether a document has an attribute with a value of this kind (None: of any); `held`, which is asked
    for an error's message alone, which kinds there are of each. Raises ChangeRequest (`param="filters"`):
    `unknown_filter_key` for a key that no document has, `filter_type` for a value of a kind that no document has there
    and for an ordering of booleans.
    """
    if isinstance(condition, Compound):
        for part in condition.filters:
            require_known(part, has, held)
    elif isinstance(condition, Comparison):
        if not has(condition.key, None):
            raise _unknown(condition.key, sorted(held()))
        for value in condition.value if isinstance(condition.value, tuple) else (condition.value,):
            kind = kind_of(value)
            if kind == BOOLEAN and condition.type in _ORDERINGS:
                raise _ill_typed(f"{condition.type!r} on {condition.key!r}: booleans have no order; use 'eq' or 'ne'.")
            if not has(condition.key, kind):
                there = " and ".join(_KIND_NAMES[other] for other in sorted(held()[condition.key]))
                never = f"never {_KIND_NAMES[kind]} such as {value!r}"
                raise _ill_typed(f"The attribute {condition.key!r} holds {there}, {never}.")


def _unknown(key: str, known: Sequence[str]) -> ChangeRequest:
    more = f" and {len(known) - MOST_KEYS_NAMED} more" if len(known) > MOST_KEYS_NAMED else ""
    names = ", ".join(map(repr, known[:MOST_KEYS_NAMED])) or "none"
    message = f"No document has an attribute {key!r}. Known attributes: {names}{more}."
    return ChangeRequest(message, code="unknown_filter_key", param="filters")


def _ill_typed(message: str) -> ChangeRequest:
    return ChangeRequest(message, code="filter_type", param="filters")


def kind_of(value: Scalar) -> int:
    """`STRING`, `NUMBER` or `BOOLEAN`."""
    if isinstance(value, bool):
        return BOOLEAN
    return STRING if isinstance(value, str) else NUMBER


class AttributeTable:
    """The attributes of the documents of one store, by column. Safe to use from several threads.

    A change costs as much as the document has attributes; a filter costs a few vectorised passes over the rows. A key
    that few documents have is kept in a small dictionary, so that millions of rare keys cannot fill the memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._owners: Ids = np.zeros(64, dtype=np.int64)
        """The document of each row; 0 for a free one. Longer than there are rows, doubled when full."""
        self._columns_of: dict[int, tuple[_Key, ...]] = {}
        self._columns: dict[_Key, _Column] = {}
        """By ("attribute", key), and by ("tag", tag) with True for the documents that carry it."""

    def set(self, document_id: int, attributes: Mapping[str, Scalar], tags: Iterable[str] = ()) -> None:
        """Put these attributes and permission tags in the place of all that the document (a positive id) had.

        Raises ChangeRequest (`invalid_attribute`), changing nothing, when a value is not a string, finite number or
        boolean.
        """
        values: dict[_Key, Scalar] = {("tag", tag): True for tag in tags}
        values |= {("attribute", key): checked_attribute(key, value) for key, value in attributes.items()}
        with self._lock:
            self._forget(document_id)
            row = self._free.pop() if self._free else len(self._row_of)
            if row == len(self._owners):
                self._owners = np.concatenate([self._owners, np.zeros_like(self._owners)])
            self._row_of[document_id], self._owners[row] = row, document_id
            self._columns_of[document_id] = tuple(values)
            for key, value in values.items():
                self._columns.setdefault(key, _Column()).put(row, value, len(self._owners))

    def remove(self, document_id: int) -> None:
        """Forget this document; one that is not there is ignored."""
        with self._lock:
            self._forget(document_id)

    def matching(self, filter: Filter) -> Ids:
        """The ids of the documents that the filter allows, ascending.

        Raises ChangeRequest as `require_known` does. Without any document there is nothing to judge by: the answer is
        empty.
        """
        with self._lock:
            if not self._row_of:
                return np.empty(0, dtype=np.int64)
            there, counts = self._there(filter)
            if not there.any():
                return np.empty(0, dtype=np.int64)
            require_known(filter, partial(self._has, counts), partial(self._held, counts))
            allowed = self._mask(filter, len(there)) & there
            return np.sort(self._owners[: len(there)][allowed])

    def __len__(self) -> int:
        return len(self._row_of)

    def _forget(self, document_id: int) -> None:
        row = self._row_of.pop(document_id, None)
        if row is None:
            return
        for key in self._columns_of.pop(document_id):
            self._columns[key].drop(row)
            if not len(self._columns[key]):
                del self._columns[key]
        self._owners[row] = 0
        self._free.append(row)

    def _mask(self, filter: Filter, rows: int) -> Mask:
        if isinstance(filter, Comparison):
            return self._compared(filter, rows)
        if isinstance(filter, AnyTag):
            return self._tagged(filter, rows)
        every = filter.type == "and"
        mask = np.full(rows, every)
        for part in filter.filters:
            inner = self._mask(part, rows)
            mask = mask & inner if every else mask | inner
        return mask

    def _compared(self, comparison: Comparison, rows: int) -> Mask:
        column = self._columns["attribute", comparison.key]
        wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
        if comparison.type in _ORDERINGS:
            return column.ordered(_ORDERINGS[comparison.type], wanted[0], rows)
        equal = column.equal(wanted, rows)
        return ~equal if comparison.type in ("ne", "nin") else equal

    def _tagged(self, filter: AnyTag, rows: int) -> Mask:
        mask = np.zeros(rows, dtype=bool)
        for tag in filter.tags:
            column = self._columns.get(("tag", tag))
            if column is not None:
                mask |= column.equal((True,), rows)
        return mask

    def _there(self, filter: Filter) -> tuple[Mask, _Counts]:
        """The rows in use that a filter's own tags let through, where it is tags and something else, and how to count
        a column's values among them: what the others hold must not be told by an error either."""
        there: Mask = self._owners[: len(self._row_of) + len(self._free)] > 0
        parts = filter.filters if isinstance(filter, Compound) and filter.type == "and" else ()
        tagged = [part for part in parts if isinstance(part, AnyTag)]
        for part in tagged:
            there &= self._tagged(part, len(there))
        return there, (lambda column: column.counts_among(there)) if tagged else (lambda column: column.counts)

    def _has(self, counts: _Counts, key: str, kind: int | None) -> bool:
        column = self._columns.get(("attribute", key))
        if column is None:
            return False
        held = counts(column)
        return sum(held) > 0 if kind is None else held[kind] > 0

    def _held(self, counts: _Counts) -> dict[str, list[int]]:
        held = {key: counts(column) for (space, key), column in self._columns.items() if space == "attribute"}
        return {key: [kind for kind in _KIND_NAMES if mine[kind]] for key, mine in held.items() if sum(mine)}


def checked_attribute(key: str, value: object) -> Scalar:
    """An attribute's value as it is stored and compared: numbers as doubles. Raises ChangeRequest as `set` does."""
    try:
        return _scalar(value, key)
    except ChangeRequest as error:
        raise ChangeRequest(
            f"The attribute {key!r} must be a string, a finite number or a boolean.",
            code="invalid_attribute",
            param="attributes",
        ) from error


class _Column:
    """One key's values by row: a kind (0 where absent) and a double, which for a string is its code in `_Strings`.

    While the key is rare they lie in a dictionary; from one row in sixteen on, in arrays as long as the table.
    """

    def __init__(self) -> None:
        self.counts = [0, 0, 0, 0]
        self._strings = _Strings()
        self._rare: dict[int, tuple[int, float]] | None = {}
        self._kinds = np.empty(0, dtype=np.int8)
        self._values = np.empty(0, dtype=np.float64)

    def __len__(self) -> int:
        return sum(self.counts)

    def put(self, row: int, value: Scalar, capacity: int) -> None:
        kind = kind_of(value)
        self.counts[kind] += 1
        number = float(self._strings.hold(value)) if isinstance(value, str) else float(value)
        if self._rare is not None:
            self._rare[row] = kind, number
            if len(self._rare) > capacity // 16:
                self._spread(capacity)
            return
        if row >= len(self._kinds):
            self._grow(capacity)
        self._kinds[row], self._values[row] = kind, number

    def drop(self, row: int) -> None:
        kind, number = self._rare.pop(row) if self._rare is not None else (self._kinds[row], self._values[row])
        self.counts[kind] -= 1
        if kind == STRING:
            self._strings.release(int(number))
        if self._rare is None:
            self._kinds[row] = 0

    def counts_among(self, there: Mask) -> list[int]:
        """How many of these rows have a value, by its kind."""
        at, kinds, _ = self._arrays()
        mine = there[at] if at is not None else there[: len(kinds)]
        kinds = kinds[: len(mine)]
        return [0, *(int(np.count_nonzero((kinds == kind) & mine)) for kind in _KIND_NAMES)]

    def equal(self, wanted: tuple[Scalar, ...], rows: int) -> Mask:
        """Where the value is one of these, of the same type."""
        at, kinds, values = self._arrays()
        mask = np.zeros(len(kinds), dtype=bool)
        for kind in {kind_of(value) for value in wanted}:
            numbers = [self._number(value) for value in wanted if kind_of(value) == kind]
            mask |= (kinds == kind) & (values == numbers[0] if len(numbers) == 1 else np.isin(values, numbers))
        return _scatter(mask, at, rows)

    def ordered(self, compare: Callable[[Any, Any], Any], wanted: Scalar, rows: int) -> Mask:
        """Where `compare(value, wanted)` holds for a value of the same type."""
        at, kinds, values = self._arrays()
        mask = kinds == kind_of(wanted)
        if isinstance(wanted, str):
            mask[mask] = self._strings.holds(compare, wanted)[values[mask].astype(np.int64)]
        else:
            mask &= compare(values, wanted)
        return _scatter(mask, at, rows)

    def _number(self, value: Scalar) -> float:
        return float(self._strings.code(value)) if isinstance(value, str) else float(value)

    def _arrays(self) -> tuple[Ids | None, NDArray[np.int8], NDArray[np.float64]]:
        """The rows meant (None: from 0 on), and their kinds and values."""
        if self._rare is None:
            return None, self._kinds, self._values
        pairs = np.array(list(self._rare.values()), dtype=np.float64).reshape(-1, 2)
        at = np.fromiter(self._rare, dtype=np.int64, count=len(self._rare))
        return at, pairs[:, 0].astype(np.int8), pairs[:, 1]

    def _spread(self, capacity: int) -> None:
        at, kinds, values = self._arrays()
        self._rare = None
        self._grow(capacity)
        self._kinds[at], self._values[at] = kinds, values

    def _grow(self, capacity: int) -> None:
        more = capacity - len(self._kinds)
        self._kinds = np.concatenate([self._kinds, np.zeros(more, dtype=np.int8)])
        self._values = np.concatenate([self._values, np.zeros(more)])


def _scatter(mask: Mask, at: Ids | None, rows: int) -> Mask:
    """The mask over all rows, of one over the rows `at` or over the first or more rows."""
    whole = np.zeros(rows, dtype=bool)
    if at is None:
        whole[: len(mask)] = mask[:rows]
    else:
        whole[at[mask]] = True
    return whole


class _Strings:
    """Distinct strings and a small integer for each, given back when the last use is gone."""

    def __init__(self) -> None:
        self._code_of: dict[str, int] = {}
        self._strings: list[str] = []
        self._uses: list[int] = []
        self._free: list[int] = []

    def hold(self, string: str) -> int:
        code = self._code_of.get(string)
        if code is None:
            code = self._new_code()
            self._code_of[string], self._strings[code] = code, string
        self._uses[code] += 1
        return code

    def release(self, code: int) -> None:
        self._uses[code] -= 1
        if not self._uses[code]:
            del self._code_of[self._strings[code]]
            self._strings[code] = ""
            self._free.append(code)

    def code(self, string: str) -> int:
        """Its code; -1 when no value has it."""
        return self._code_of.get(string, -1)

    def holds(self, compare: Callable[[Any, Any], Any], wanted: str) -> Mask:
        """For each code, whether its string compares so with `wanted`."""
        return np.fromiter((compare(string, wanted) for string in self._strings), bool, len(self._strings))

    def _new_code(self) -> int:
        if self._free:
            return self._free.pop()
        self._strings.append("")
        self._uses.append(0)
        return len(self._strings) - 1
