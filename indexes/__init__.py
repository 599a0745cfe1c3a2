"""Indexes: which ids are nearest to this vector, or match these words, within this set.

To add one: a file in this folder and a line in the table below; or, from another package, an entry point in the
group `rag.vector_indexes` or `rag.keyword_indexes`. The contracts are `indexes.vector` and `indexes.keyword`;
`tests/contracts/` holds the checks that every implementation must pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from indexes.keyword import KeywordIndex
from indexes.registry import resolve
from indexes.vector import VectorIndex

VECTOR_INDEXES = {
    "faiss": "indexes.faiss:FaissIndex",
    "flat": "indexes.flat:FlatIndex",
}
KEYWORD_INDEXES = {
    "tantivy": "indexes.tantivy:TantivyIndex",
}
REMOTE_INDEXES = {
    "qdrant": "indexes.qdrant_collection:QdrantCollection",
}
"""Engines of their own, which serve both legs and are written instead of following the catalog (`rag.remote`)."""


def require_vector_index(name: str) -> None:
    """See that `name` stands for a vector index whose package is installed. Raises as `open_vector_index` does."""
    resolve("vector index", VECTOR_INDEXES | REMOTE_INDEXES, "rag.vector_indexes", name)


def require_keyword_index(name: str) -> None:
    """See that `name` stands for a keyword index whose package is installed. Raises as `open_keyword_index` does."""
    resolve("keyword index", KEYWORD_INDEXES | REMOTE_INDEXES, "rag.keyword_indexes", name)


def require_remote_index(name: str) -> None:
    """See that the package of an engine of its own is installed. Raises Unsupported."""
    resolve("index", REMOTE_INDEXES, "rag.remote_indexes", name)


def open_vector_index(name: str, dimension: int, folder: Path | None = None, shared: Path | None = None) -> VectorIndex:
    """A new, empty vector index of this width, which may use `folder` (it exists) for what it does not keep in memory.

    Nothing in there outlives the process; None means where temporary files go. Into `shared` goes what costs much to
    work out, for other processes and later ones with the same vectors, or nearly: the index makes it, checks what it
    reads there, and does without when it is None. An index is called with all three.

    Raises Unsupported for an unknown name or a missing package, ChangeRequest for a width below 1.
    """
    return cast(VectorIndex, _vector_index(name)(dimension, folder, shared))


def open_keyword_index(name: str, folder: Path) -> KeywordIndex:
    """The keyword index that lies in `folder`, made there when the folder is empty or absent.

    Raises Unsupported for an unknown name or a missing package, ChangeRequest (`index_unreadable`) when what lies in
    the folder cannot be used: delete the folder and index the texts again.
    """
    return cast(KeywordIndex, _keyword_index(name)(folder))


def _vector_index(name: str) -> Any:
    return resolve("vector index", VECTOR_INDEXES, "rag.vector_indexes", name)


def _keyword_index(name: str) -> Any:
    return resolve("keyword index", KEYWORD_INDEXES, "rag.keyword_indexes", name)
