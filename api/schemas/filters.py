"""How a filter on attributes looks in the interface's description; `indexes.filters` reads and checks it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.schemas.common import RequestModel


class ComparisonFilter(RequestModel):
    """One attribute against a value, or for `in` and `nin` against several."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: str | float | bool | list[str | float]


class CompoundFilter(RequestModel):
    """All or any of some filters."""

    type: Literal["and", "or"]
    filters: list[ComparisonFilter | CompoundFilter]


class _Shown:
    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter[Any](ComparisonFilter | CompoundFilter).core_schema)


Filters = Annotated[dict[str, Any], _Shown()]
