"""The key of a remote provider: where it is read, and where it may go."""

from __future__ import annotations

import os

from indexes.errors import TryLater

HOSTED_KEY = "OPENAI_API_KEY"
"""The hosted service's usual variable."""


def read_key(who: str, variable: str | None, base_url: str | None) -> str | None:
    """The key in an environment variable; None where none is named.

    The hosted service's usual variable is read only for the hosted service (no `base_url`): a key goes nowhere else
    unasked. Raises TryLater, naming `who` ("The model 'x'"), when the variable is not set.
    """
    name = variable or (HOSTED_KEY if base_url is None else None)
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise TryLater(
            f"{who} has no key: the environment variable {name} is not set. Its operator should set it and restart."
        )
    return key
