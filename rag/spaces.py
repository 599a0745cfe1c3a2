"""A vector space: everything that decides what a vector means.

Two vectors may be compared only when their spaces have the same fingerprint. The width says
nothing: two models of 384 dimensions are two spaces.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from indexes.errors import ChangeRequest


@dataclass(frozen=True)
class Space:
    """What defines the vectors of an embedder, and nothing about how they are computed."""

    provider: str
    model: str
    revision: str
    """SHA-256 of the weights, or the revision that the provider names; "" where there is none."""
    dimension: int
    pooling: str
    normalised: bool
    document_prefix: str
    query_prefix: str
    token_limit: int
    """Tokens that the model reads, special tokens included."""

    @cached_property  # each query asks for it several times
    def fingerprint(self) -> str:
        """32 hexadecimal digits over every field."""
        canonical = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def require_same_space(expected: Space, found: Space, where: str) -> None:
    """Raise ChangeRequest, naming both spaces and what differs, unless they are the same."""
    if expected.fingerprint == found.fingerprint:
        return
    ours, theirs = asdict(expected), asdict(found)
    different = ", ".join(f"{k}: {ours[k]!r} there, {theirs[k]!r} here" for k in ours if ours[k] != theirs[k])
    raise ChangeRequest(
        f"{where} holds vectors of the space {expected.model} ({expected.fingerprint}), but the embedder in use "
        f"makes vectors of the space {found.model} ({found.fingerprint}); they differ in {different}. "
        f"Use the embedder that made the store, or make a new store for this one.",
        code="space_mismatch",
        param="embedder",
    )
