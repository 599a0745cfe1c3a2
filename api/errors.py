"""Every error that leaves the server, in OpenAI's shape: `{"error": {message, type, param, code}}`.

The three families become statuses here and nowhere else; what is not one of them is a 500 with a fixed message, and
the details go to the log only.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from indexes.errors import ChangeRequest, NotThere, RagError, TryLater

STATUS_OF_CODE = {
    "invalid_api_key": 401,
    "missing_api_key": 401,
    "invalid_claim": 401,
    "insufficient_scope": 403,
    "host_not_allowed": 403,
    "origin_not_allowed": 403,
    "model_not_deletable": 403,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "file_too_large": 413,
    "rate_limit_exceeded": 429,
}
"""Codes whose status is not the one of their family."""
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
TELLING = ("extra_forbidden", "nul_character", "string_too_long")
"""Faults that say more than others of the same place."""
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
LONGEST_MESSAGE = 2_000
LONGEST_PARAM = 256
"""Characters of what an error repeats of a request, which may be as long as a body."""
UNEXPECTED = ChangeRequest(
    "It failed unexpectedly. The log of the server says more; where there is none, run again with RAG_LOG_LEVEL=debug.",
    code="server_error",
)

log = logging.getLogger(__name__)


class Refused(HTTPException):
    """An error raised where the framework lets only its own exceptions pass: while a body is read."""

    def __init__(self, error: RagError) -> None:
        super().__init__(status_of(error), error.message)
        self.error = error


def status_of(error: RagError) -> int:
    """The HTTP status of an error."""
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    if isinstance(error, TryLater):
        return 503
    return 404 if isinstance(error, NotThere) else 400


def error_body(error: RagError, status: int | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    status = status or status_of(error)
    kind = TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    message, param = error.message[:LONGEST_MESSAGE], error.param and error.param[:LONGEST_PARAM]
    return {"error": {"message": message, "type": kind, "param": param, "code": error.code}}


def error_response(error: RagError, status: int | None = None) -> Response:
    """The response for an error; in ASCII, because a message may quote what no encoding takes."""
    status = status or status_of(error)
    headers = {"X-Content-Type-Options": "nosniff"}
    if isinstance(error, TryLater):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 1.0)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 413:
        headers["Connection"] = "close"
    return Response(json.dumps(error_body(error, status)), status, headers, "application/json")


def unexpected_response() -> Response:
    """The response for a fault of ours."""
    return error_response(UNEXPECTED, 500)


def as_rag_error(error: BaseException) -> RagError:
    """An error as it may be shown: itself, or a fixed one in place of what nobody expected (which is logged)."""
    if isinstance(error, RagError):
        return error
    log.error("unexpected error", exc_info=error)
    return UNEXPECTED


def install_handlers(app: FastAPI) -> None:
    """Let the app answer every error in this shape."""
    app.add_exception_handler(RagError, _rag_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


async def _rag_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RagError)
    return error_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [(fault, _place(fault, error.body)) for fault in error.errors()]
    # Of the branches of a union, the one that reached deepest is the one that was meant; of several at one place, a
    # text that is refused for what it holds was meant as a text; and a misspelt field is unknown and missing at once.
    fault, place = max(faults, key=lambda found: (len(found[1]), found[0]["type"] in TELLING))
    return error_response(_explain(fault, place, request.headers.get("content-type")))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return error_response(error.error)
    if error.status_code == 404:
        return error_response(NotThere(f"There is no route {request.method} {request.url.path}.", code="unknown_url"))
    if error.status_code == 405:
        message = f"{request.url.path} does not take {request.method}."
        response = error_response(ChangeRequest(message, code="method_not_allowed"))
        response.headers["Allow"] = ", ".join(_methods_of(request))
        return response
    return error_response(ChangeRequest(f"{error.detail.rstrip('.')}."), error.status_code)


def _methods_of(request: Request) -> list[str]:
    """What the path takes, over all its routes: the framework names those of the first one only."""
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _place(fault: Mapping[str, Any], body: Any) -> list[str]:
    """Where in the request a fault is: the names of branches that validation puts between are left out."""
    where, *parts = fault["loc"]
    if where != "body":
        return [str(part) for part in parts]
    place: list[str] = []
    for number, part in enumerate(parts, 1):
        inside = isinstance(part, int) and part < len(body) if isinstance(body, list) else _has(body, part)
        if inside:
            body = body[part]
        if inside or (number == len(parts) and fault["type"] == "missing"):
            place.append(str(part))
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        place.append(str(fault["ctx"]["discriminator"]).strip("'"))
    return place


def _has(body: Any, part: int | str) -> bool:
    return isinstance(body, dict) and part in body


def _explain(fault: Mapping[str, Any], place: Sequence[str], content_type: str | None) -> ChangeRequest:
    """A fault that validation found, naming the field."""
    param = (fault.get("ctx") or {}).get("param") or ".".join(place) or None
    kind = fault["type"]
    if kind == "json_invalid":
        return ChangeRequest(f"The body is not valid JSON: {fault['ctx']['error']}.", code="invalid_json")
    if not place and kind != "missing" and "json" not in (content_type or ""):
        return ChangeRequest(
            "The body is read as JSON only: send it with `Content-Type: application/json`.", code="invalid_content_type"
        )
    if kind == "extra_forbidden":
        return ChangeRequest(f"Unknown field {param!r}. Leave it out.", code="unknown_parameter", param=param)
    if kind in ("missing", "union_tag_not_found"):
        what = f"The field {param!r}" if param else "A JSON body"
        return ChangeRequest(f"{what} is required.", code="missing_required_parameter", param=param)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if kind == "unsupported_parameter":
        return ChangeRequest(message, code=kind, param=param)
    named = f"{param!r} is not valid: {message}." if param else f"The body is not valid: {message}."
    return ChangeRequest(named, code=kind if kind == "nul_character" else "invalid_value", param=param)
