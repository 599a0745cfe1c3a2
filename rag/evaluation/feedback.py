"""What feedback says of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UP = frozenset({"up", "thumbs_up", "good", "helpful", "correct", "positive"})
DOWN = frozenset({"down", "thumbs_down", "bad", "unhelpful", "incorrect", "negative"})
"""Labels of feedback that are a thumb; so are the values true and 1, and false, 0 and -1."""


def thumb_of(feedback: Mapping[str, Any]) -> bool | None:
    """Whether feedback is a thumb up or down; None where it is neither."""
    value, label = feedback.get("value"), str(feedback.get("label") or "").casefold()
    if value in (0, 1, -1):
        return bool(value == 1)
    return True if label in UP else False if label in DOWN else None
