"""Indexes: which ids are nearest to this vector, or match these words, within this set.

To add one: a file in this folder and a line in the table below; or, from another package, an entry point in the
group `rag.vector_indexes` or `rag.keyword_indexes`. The contracts are `indexes.vector` and `indexes.keyword`;
`tests/contracts/` holds the checks that every implementation must pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

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


def open_vector_index(name: str, dimension: int) -> VectorIndex:
    """A new, empty vector index of this width.

    Raises Unsupported for an unknown name or a missing package, ChangeRequest for a width below 1.
    """
    return cast(VectorIndex, resolve("vector index", VECTOR_INDEXES, "rag.vector_indexes", name)(dimension))


def open_keyword_index(name: str, folder: Path) -> KeywordIndex:
    """The keyword index that lies in `folder`, made there when the folder is empty or absent.

    Raises Unsupported for an unknown name or a missing package, ChangeRequest (`index_unreadable`) when what lies in
    the folder cannot be used: delete the folder and index the texts again.
    """
    return cast(KeywordIndex, resolve("keyword index", KEYWORD_INDEXES, "rag.keyword_indexes", name)(folder))
