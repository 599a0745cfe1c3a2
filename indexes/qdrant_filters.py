"""Filters in Qdrant's terms, and the attributes as it must hold them for that.

An attribute is one string in a list, `"lang"s6465` for de: its key as JSON, its type, its value in hexadecimal digits.
Equality is that of strings: no key becomes a part of a path, no value is read as anything else (Qdrant has no equality
of doubles, and to Python True is 1), and one payload index serves every key.

For orderings there are fields besides, under the key in hexadecimal digits: a number itself; of a string, which Qdrant
cannot order, its first bytes as three numbers of six bytes each, and where all are equal its digits decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from qdrant_client import models

from indexes.errors import ChangeRequest
from indexes.filters import AnyTag, Comparison, Filter, Scalar, checked_attribute

ATTRIBUTES, TAGS, NUMBERS = "attributes", "tags", "numbers"
PIECES = ("bytes_0", "bytes_6", "bytes_12")

NEVER = ""
"""In no list: for a choice among nothing, since an empty `should` would match everything."""

HEX = "0123456789abcdef"
PIECE = 6
"""Bytes that a double holds exactly."""

LONGEST = 64
"""Bytes of a string that others may be ordered by: some fifteen conditions each beyond the pieces."""


def attributes_payload(attributes: Mapping[str, Scalar], tags: Iterable[str]) -> dict[str, Any]:
    """A document's attributes and permission tags, for the payload of its points.

    Raises ChangeRequest (`invalid_attribute`) for a value that is not a string, a finite number or a boolean.
    """
    values = {key: checked_attribute(key, value) for key, value in attributes.items()}
    return {
        ATTRIBUTES: [_token(key, value) for key, value in values.items()],
        NUMBERS: {_name(key): value for key, value in values.items() if not isinstance(value, str | bool)},
        TAGS: [json.dumps(tag) for tag in sorted(set(tags))],
        **{
            field: {_name(key): _pieces(value)[at] for key, value in values.items() if isinstance(value, str)}
            for at, field in enumerate(PIECES)
        },
    }


def order_fields(key: str) -> list[str]:
    """The fields, of doubles, by which orderings of an attribute are found: for payload indexes."""
    return [f"{field}.{_name(key)}" for field in (NUMBERS, *PIECES)]


def compiled(filter: Filter) -> models.Filter:
    """The condition that a point's payload fulfils when its document matches.

    Raises ChangeRequest (`filter_type`) for an ordering of booleans or by a string of more than 64 bytes.
    """
    if isinstance(filter, AnyTag):
        return models.Filter(must=[_one_of(TAGS, [json.dumps(tag) for tag in sorted(filter.tags)])])
    if isinstance(filter, Comparison):
        return _compared(filter)
    parts: list[models.Condition] = [compiled(part) for part in filter.filters]
    if filter.type == "and":
        return models.Filter(must=parts)
    return models.Filter(should=parts or [_one_of(ATTRIBUTES, [])])


def _compared(comparison: Comparison) -> models.Filter:
    wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    if comparison.type in ("gt", "gte", "lt", "lte"):
        return _ordered(comparison.key, comparison.type, wanted[0])
    equal = _one_of(ATTRIBUTES, [_token(comparison.key, value) for value in wanted])
    return models.Filter(must_not=[equal]) if comparison.type in ("ne", "nin") else models.Filter(must=[equal])


def _ordered(key: str, order: str, value: Scalar) -> models.Filter:
    _require_order(key, value)
    numbers, *pieces = order_fields(key)
    if not isinstance(value, str):
        return models.Filter(must=[_range(numbers, order, value)])
    ways: list[models.Condition] = []
    alike: list[models.Condition] = []
    for field, piece in zip(pieces, _pieces(value), strict=True):
        ways.append(models.Filter(must=[*alike, _range(field, order[:2], piece)]))
        alike.append(models.FieldCondition(key=field, range=models.Range(gte=piece, lte=piece)))
    decided = models.Filter(should=_by_digits(order, _token(key, value), len(_token(key, ""))))
    return models.Filter(should=[*ways, models.Filter(must=[*alike, decided])])


def _by_digits(order: str, whole: str, start: int) -> list[models.Condition]:
    """For strings whose pieces are equal: the greater has the greater digit where they first differ, or is longer.

    `whole` is the attribute that others are compared with, its value from `start` on.
    """
    unequal = range(start + 2 * PIECE * len(PIECES), len(whole))
    if order in ("gt", "gte"):
        begins = [whole[:at] + digit for at in unequal for digit in HEX if digit > whole[at]]
        begins += [whole] if order == "gte" else [whole + digit for digit in HEX]
        return [_begins(begin) for begin in begins]
    begins = [whole[:at] + digit for at in unequal for digit in HEX if digit < whole[at]]
    shorter = [whole[:at] for at in range(start, len(whole))] + ([whole] if order == "lte" else [])
    return [*(_begins(begin) for begin in begins), _one_of(ATTRIBUTES, shorter)]


def _require_order(key: str, value: Scalar) -> None:
    if isinstance(value, bool):
        why = "booleans have no order; use 'eq' or 'ne'"
    elif isinstance(value, str) and len(_bytes(value)) > LONGEST:
        why = f"strings are ordered by at most {LONGEST} bytes"
    else:
        return
    raise ChangeRequest(f"The filter on {key!r} cannot be used: {why}.", code="filter_type", param="filters")


def _one_of(field: str, wanted: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=wanted or [NEVER]))


def _range(field: str, order: str, bound: float) -> models.FieldCondition:
    return models.FieldCondition(key=field, range=models.Range(**{order: bound}))


def _begins(prefix: str) -> models.FieldCondition:
    return models.FieldCondition(key=ATTRIBUTES, match=models.MatchPrefix(prefix=prefix))


def _token(key: str, value: Scalar) -> str:
    """ASCII throughout, so that half a surrogate pair travels too. A quote within JSON is escaped, so the key's end is
    plain; 0.0 and -0.0 are one."""
    if isinstance(value, bool):
        return f"{json.dumps(key)}b{value:d}"
    if isinstance(value, str):
        return f"{json.dumps(key)}s{_bytes(value).hex()}"
    return f"{json.dumps(key)}n{(value + 0.0).hex()}"


def _name(key: str) -> str:
    return f"k{_bytes(key).hex()}"


def _pieces(value: str) -> list[float]:
    """The first bytes, in numbers that are in the order of the strings; nothing is less than any byte but zero."""
    given = _bytes(value)
    parts = [given[at * PIECE : (at + 1) * PIECE] for at in range(len(PIECES))]
    return [float(int.from_bytes(part.ljust(PIECE, b"\0"))) for part in parts]


def _bytes(text: str) -> bytes:
    """In UTF-8, whose order is that of the code points."""
    return text.encode("utf-8", "surrogatepass")
