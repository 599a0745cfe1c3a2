"""What an embedder returns, looked at before anything stands on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest
from rag.embedders import Embedder

UNIT_WITHIN = 1e-3
"""How far the length of a vector may be from 1."""
ALIKE = 0.98
"""The least cosine of two vectors of one text, embedded alone and among others: that changes the last digits only."""
ASKED_TWICE = 3


def embed_checked(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    """`embed_documents`, shape (len(texts), dimension), once it is seen to be that.

    Raises ChangeRequest: `embedder_wrong_count` for another number of rows than of texts, `embedder_wrong_width`,
    `embedder_not_finite` for NaN and infinity, `embedder_not_unit`; and what the embedder raises.
    """
    return checked_rows(embedder, embedder.embed_documents(texts), len(texts))


def checked_rows(embedder: Embedder, rows: Any, count: int) -> NDArray[np.float32]:
    """What an embedder returned for `count` texts. Raises as `embed_checked` does."""
    found = np.asarray(rows, dtype=np.float32)
    if found.ndim != 2 or len(found) != count:
        raise _fault(embedder, "wrong_count", f"an array of the shape {found.shape} for {count} texts")
    if found.shape[1] != embedder.space.dimension:
        said = f"vectors of {found.shape[1]} dimensions instead of {embedder.space.dimension}"
        raise _fault(embedder, "wrong_width", said)
    if not np.isfinite(found).all():
        raise _fault(embedder, "not_finite", "vectors that hold NaN or infinity")
    if count and np.abs(np.linalg.norm(found, axis=1) - 1).max() > UNIT_WITHIN:
        raise _fault(embedder, "not_unit", "vectors that are not of unit length")
    return found


def require_order(embedder: Embedder, texts: Sequence[str], rows: NDArray[np.float32]) -> None:
    """Embed a few of the texts again, each alone, and see that each has its own row.

    Raises ChangeRequest (`embedder_wrong_order`), and as `embed_checked`.
    """
    for at in sorted({round(part * (len(texts) - 1) / (ASKED_TWICE - 1)) for part in range(ASKED_TWICE)}):
        alone = embed_checked(embedder, [texts[at]])[0]
        if float(alone @ rows[at]) < ALIKE:
            said = "another vector for a text alone than for the same text among others: its rows are in another order"
            raise _fault(embedder, "wrong_order", said)


def _fault(embedder: Embedder, code: str, said: str) -> ChangeRequest:
    return ChangeRequest(
        f"The embedder of {embedder.space.model!r} returned {said}. Nothing of it was kept. Correct the embedder, or "
        "use another one.",
        code=f"embedder_{code}",
        param="embedder",
    )
