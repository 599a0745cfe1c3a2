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
    name = _variable(variable, base_url)
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise TryLater(
            f"{who} has no key: the environment variable {name} is not set. Its operator should set it and restart."
        )
    return key


def key_advice(table: str, variable: str | None, base_url: str | None) -> str:
    """What the operator should do when a server refuses the key; `table` is the alias's in the settings."""
    name = _variable(variable, base_url)
    if name is None:
        return (
            f"No key was sent, since [{table}] names none. Its operator should put one into an environment variable "
            "and name that as `api_key_env`."
        )
    return f"Its operator should check the key in the environment variable {name}."


def _variable(variable: str | None, base_url: str | None) -> str | None:
    return variable or (HOSTED_KEY if base_url is None else None)
