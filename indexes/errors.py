"""Errors come in three families, by what the caller does next.

    RagError
    ├── TryLater        nothing is wrong with the request; repeat it later
    ├── ChangeRequest   the request cannot succeed as it is; change it
    │   └── Unsupported     a name or a kind that nobody here knows
    └── NotThere        the thing named does not exist (or is not yours to see)

Every error carries a `code` (a stable word for machines), a `message` (what happened, to what,
and what to do) and, where one field of the request is at fault, its name in `param`.
The families live in the lowest room so that every room can raise them.
"""

from __future__ import annotations


class RagError(Exception):
    """The root of all errors that this project raises on purpose."""

    default_code = "server_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param


class TryLater(RagError):
    """Nothing is wrong with the request; the same request may succeed later.

    `retry_after` is the number of seconds to wait, when that is known.
    """

    default_code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.retry_after = retry_after


class ChangeRequest(RagError):
    """The request cannot succeed as it is; the message says what to change."""

    default_code = "invalid_request"


class Unsupported(ChangeRequest):
    """A name or kind that nobody here knows, or whose package is not installed."""

    default_code = "unsupported"


class NotThere(RagError):
    """The thing named does not exist, or is not visible to this caller."""

    default_code = "not_found"
