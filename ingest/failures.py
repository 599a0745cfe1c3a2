"""How a document fails: a stable code, and a message that a person can act on."""

from __future__ import annotations

from typing import Literal, get_args

FailureCode = Literal[
    "unsupported_file",
    "invalid_file",
    "empty",
    "no_text",
    "encrypted",
    "too_large",
    "parse_timeout",
    "server_error",
]
FAILURE_CODES: tuple[FailureCode, ...] = get_args(FailureCode)


class DocumentFailure(Exception):
    """One document cannot be ingested. `retryable` is true only where the same bytes may succeed later."""

    def __init__(self, code: FailureCode, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code: FailureCode = code
        self.message = message
        self.retryable = retryable
