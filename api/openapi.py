"""What the schema says beyond what the routes' types say: how every request may fail, the key, examples that run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, TypeAdapter

from api.middleware import OPEN_PATHS
from api.openapi_examples import EXAMPLES, PATH_EXAMPLES
from api.schemas.chat import ChatCompletionChunk
from api.schemas.not_served import CHAT, RESPONSES, NotServed, told
from api.schemas.responses import ResponseEvent

Json = dict[str, Any]

ERRORS: Mapping[int, str] = {
    400: "The request cannot succeed as it is: `code` and `param` say what to change.",
    401: "The key is missing or not valid.",
    403: "The key may not do this, or the `Host` or `Origin` is not one of this server's.",
    404: "It does not exist, or is not there for this key.",
    413: "The body is too large.",
    429: "Too many requests: `Retry-After` says when to try again.",
    500: "It failed unexpectedly.",
    503: "Try again later: `Retry-After` says when.",
}
"""The statuses that any route may answer with besides its own, and what they mean."""
_ALWAYS = (400, 500, 503)
_KEYED = (401, 403, 429)
_WAITING = (429, 503)
STREAMED: Mapping[tuple[str, str], Any] = {
    ("post", "/v1/chat/completions"): ChatCompletionChunk,
    ("post", "/v1/responses"): ResponseEvent,
}
"""Operations that answer with server-sent events where the request says `stream`, and the type of an event."""
NOT_SERVED: Mapping[tuple[str, str], Mapping[str, NotServed]] = {
    ("post", "/v1/chat/completions"): CHAT,
    ("post", "/v1/responses"): RESPONSES,
}
"""Operations with fields of OpenAI's that nothing acts on."""
_SECONDS = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
_SCHEMAS = "#/components/schemas/"


class ErrorObject(BaseModel):
    """OpenAI's error: a sentence for people, a stable `code` for machines, and the field at fault."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorObject


def describe(app: FastAPI, *, needs_key: bool) -> None:
    """Let the app's schema say it all. Call it when the routes are there."""
    plain = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is None:
            _complete(plain(), needs_key=needs_key)
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(schema: Json, *, needs_key: bool) -> None:
    components = schema.setdefault("components", {})
    schemas: Json = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    described = ErrorResponse.model_json_schema(ref_template=_SCHEMAS + "{model}")
    schemas |= described.pop("$defs") | {ErrorResponse.__name__: described}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, method, operation in _operations(schema):
        keyed = path not in OPEN_PATHS
        operation["security"] = [{"key": []}] if keyed and needs_key else []
        _add_errors(path, operation, keyed=keyed)
        if (method, path) in STREAMED:
            described = TypeAdapter(STREAMED[method, path]).json_schema(
                ref_template=_SCHEMAS + "{model}", mode="serialization"
            )
            schemas |= described.pop("$defs", {}) | schemas
            operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": described}
        if (method, path) in NOT_SERVED:
            operation["description"] += f"\n\n{told(NOT_SERVED[method, path])}"
        _add_examples(operation, EXAMPLES.get((method, path), {}))
        if method != "delete":
            _add_path_examples(operation)


def _operations(schema: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _add_errors(path: str, operation: Json, *, keyed: bool) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # what does not validate is answered with 400
    statuses = {*_ALWAYS, *(_KEYED if keyed else ())}
    statuses |= {404} if "{" in path or "requestBody" in operation else set()
    statuses |= {413} if "requestBody" in operation else set()
    for status in sorted(statuses):
        responses.setdefault(str(status), _error_response(status))


def _error_response(status: int) -> Json:
    schema = {"$ref": _SCHEMAS + ErrorResponse.__name__}
    headers = {"headers": {"Retry-After": _SECONDS}} if status in _WAITING else {}
    return {"description": ERRORS[status], **headers, "content": {"application/json": {"schema": schema}}}


def _add_examples(operation: Json, examples: Mapping[str, Any]) -> None:
    if examples:
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = {name: {"value": value} for name, value in examples.items()}


def _add_path_examples(operation: Json) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in PATH_EXAMPLES:
            parameter["example"] = PATH_EXAMPLES[parameter["name"]]
