"""`rag export` and `rag import`: a store as one file, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.commands.call import Call, require_here, settings_of
from api.commands.output import print_json, print_text
from api.commands.progress import stages
from ingest import exporting, importing
from rag.backend import Backend


def export_store(call: Call, name: str, path: Path) -> None:
    """Write a store to an archive."""
    with _open(call, "An export") as backend, stages(as_json=call.json, events=True) as tell:
        counts = exporting.export_store(backend, backend.find_store(name), path, tell)
    size = path.stat().st_size
    if call.json:
        print_json({"event": "end", "file": str(path), "bytes": size, **counts.model_dump()}, one_line=True)
    else:
        print_text(f"{path}: {counts.documents:,} documents, {counts.chunks:,} chunks, {size:,} bytes.")


def import_store(call: Call, path: Path, name: str | None) -> None:
    """Make a store of an archive."""
    with _open(call, "An import") as backend, stages(as_json=call.json, events=True) as tell:
        store = importing.import_store(backend, path, name, tell)
    if call.json:
        print_json({"event": "end", "id": store.public_id, "name": store.name, "embedded": 0}, one_line=True)
    else:
        print_text(f"Made {store.name} ({store.public_id}); nothing was embedded.")


@contextmanager
def _open(call: Call, what: str) -> Iterator[Backend]:
    require_here(call, what)
    backend = Backend(settings_of(call))
    try:
        yield backend
    finally:
        asyncio.run(backend.close())
