"""What all shapes share: strict requests, plain responses, lists with cursors."""

from __future__ import annotations

import math
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from rag.catalog.records import Page, PageRequest


class RequestModel(BaseModel):
    """A body: unknown fields and wrong types are refused, never guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    """An object of an answer."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "NUL characters are not allowed")
    return text


def _within_doubles(value: Any) -> Any:
    try:
        fits = isinstance(value, str | bool) or math.isfinite(float(value))
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError("the number is not finite, or too large")
    return value


NoNul = AfterValidator(_without_nul)
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), NoNul]
LongText = Annotated[str, StringConstraints(max_length=4_096), NoNul]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Question = Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=64), NoNul]
Value = Annotated[str, StringConstraints(max_length=512), NoNul]
Metadata = Annotated[dict[Key, Value], Field(max_length=16)]
Attributes = Annotated[
    dict[Key, Annotated[bool | int | float | Value, AfterValidator(_within_doubles)]], Field(max_length=16)
]

Item = TypeVar("Item", bound=ResponseModel)


class ListOf(ResponseModel, Generic[Item]):
    """One page of a list. `last_id` is the cursor (`after`) of the next page."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(ResponseModel):
    """What was deleted."""

    id: str
    object: Literal["file", "vector_store.deleted", "vector_store.file.deleted"]
    deleted: bool = True


def list_of(page: Page[Any], ids: list[str], data: list[Item]) -> ListOf[Item]:
    """A page as it is sent; `ids` are the cursors of its rows."""
    return ListOf(data=data, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=page.has_more)


def paging(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    after: Annotated[str | None, Query(max_length=256)] = None,
    before: Annotated[str | None, Query(max_length=256)] = None,
) -> PageRequest:
    """The page that a query string asks for."""
    return PageRequest(limit, order, after, before)
