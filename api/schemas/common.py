"""What all shapes share: strict requests, plain responses, lists with cursors."""

from __future__ import annotations

import math
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    TypeAdapter,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from rag.catalog.records import Page, PageRequest
from rag.models import Usage

Inner = TypeVar("Inner")


class _Inner:
    """Of a type or null, the type: where null would say nothing."""

    def __init__(self, *, shown_only: bool) -> None:
        self._shown_only = shown_only

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema if self._shown_only or schema["type"] != "nullable" else schema["schema"]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        branches = [branch for branch in described.pop("anyOf", ()) if branch != {"type": "null"}]
        return described | (branches[0] if len(branches) == 1 else {"anyOf": branches} if branches else {})


NotNull = Annotated[Inner | None, _Inner(shown_only=False)]
"""Of a request: it may be left out, and null is refused."""
OrNull = Annotated[Inner | None, _Inner(shown_only=True)]
"""Of a body: it may be left out; null, which OpenAI's types do not have there and many clients send, says the same."""
IfAny = Annotated[Inner | None, _Inner(shown_only=True), Field(exclude_if=lambda value: value is None)]
"""Of an answer: left out where there is none."""


class Shown:
    """Of a value that something else checks or has made: the type as which the interface describes it."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter[Any](self._kind).core_schema)


def _request_schema(schema: dict[str, Any]) -> None:
    """That a field is left out is no value of it."""
    for field in schema.get("properties", {}).values():
        if field.get("default", ...) is None:
            del field["default"]


def _answer_schema(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Of an answer everything is there, except what may be null by default."""
    _request_schema(schema)
    there = [
        name for name, field in model.model_fields.items() if field.get_default() is not None or field.is_required()
    ]
    schema["required"] = there


class RequestModel(BaseModel):
    """A body: unknown fields and wrong types are refused, never guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_request_schema)


class ResponseModel(BaseModel):
    """An object of an answer. What has a default of None may be missing from it."""

    model_config = ConfigDict(frozen=True, from_attributes=True, json_schema_extra=_answer_schema)


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

Tag = Annotated[str, StringConstraints(min_length=1, max_length=256), NoNul]
Tags = Annotated[list[Tag], Field(max_length=64)]

Item = TypeVar("Item", bound=ResponseModel)


class ListOf(ResponseModel, Generic[Item]):
    """One page of a list. `last_id` is the cursor (`after`) of the next page; both ids are empty where the page is."""

    object: str = "list"
    data: list[Item]
    first_id: str
    last_id: str
    has_more: bool


class UsageObject(ResponseModel):
    """Tokens, as the provider counted them where it did."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, *used: Usage) -> UsageObject:
        """The sum of what was used."""
        prompt, completion = sum(one.prompt_tokens for one in used), sum(one.completion_tokens for one in used)
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def list_of(page: Page[Any], ids: list[str], data: list[Item]) -> ListOf[Item]:
    """A page as it is sent; `ids` are the cursors of its rows."""
    return ListOf(data=data, first_id=ids[0] if ids else "", last_id=ids[-1] if ids else "", has_more=page.has_more)


Cursor = Annotated[NotNull[str], Query(max_length=256)]


def paging(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> PageRequest:
    """The page that a query string asks for."""
    return PageRequest(limit, order, after, before)
