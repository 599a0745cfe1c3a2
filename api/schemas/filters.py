"""How a filter on attributes looks in the interface's description; `indexes.filters` reads and checks it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from api.schemas.common import RequestModel, Shown


class ComparisonFilter(RequestModel):
    """One attribute against a value, or for `in` and `nin` against several."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: str | float | bool | list[str | float]


class CompoundFilter(RequestModel):
    """All or any of some filters."""

    type: Literal["and", "or"]
    filters: list[ComparisonFilter | CompoundFilter]


Filters = Annotated[dict[str, Any], Shown(ComparisonFilter | CompoundFilter)]
