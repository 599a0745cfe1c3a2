"""What a batch costs and what it holds: counts of work, and large texts that are taken in part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingest import filling, intake
from ingest.document import check
from ingest.filling import _parsed, _windows
from rag.blobs import read_blob
from rag.catalog import chunks, schema
from rag.catalog.chunks import SplitAgain
from tests.backends import add_text, open_backend, toy_settings
from tests.ingest.by_hand import ByHand


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ByHand]:
    with open_backend(toy_settings(tmp_path), jobs=False) as backend:
        yield ByHand(backend, intake.create_store(backend, "s"))


def test_many_small_files_cost_few_transactions_and_are_embedded_together(world: ByHand) -> None:
    for number in range(64):
        add_text(world.backend, world.store, f"{number}.txt", f"File {number} about lapwings.")
    batch = world.claimed()
    done: Counter[str] = Counter()
    sa.event.listen(
        world.backend.database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: done.update([statement.partition(" ")[0], statement]),
    )
    sizes = embedded_sizes(world)
    world.run(batch)
    assert sizes == [64]
    assert done["BEGIN IMMEDIATE"] <= 10
    assert done["SELECT"] + done["INSERT"] + done["UPDATE"] + done["DELETE"] <= 80
    document = world.document("63.txt")
    assert document is not None
    assert (document.state, document.chunks_total, document.chunks_done, document.embedded) == ("completed", 1, 1, 1)


def test_a_large_text_is_taken_in_part_by_part(world: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.pipeline.LARGE_BYTES", 10_000)
    monkeypatch.setattr(filling, "WINDOW_TEXTS", 5)
    text = "".join(f"Paragraph {n} about curlews.\nIt says little else. {'Words follow. ' * 8}\n\n" for n in range(200))
    sizes = embedded_sizes(world)
    batch = world.claim("a.txt", text)
    with monkeypatch.context() as patched:
        patched.setattr(chunks, "put_chunks", dying_after(3, chunks.put_chunks))
        with pytest.raises(Killed):
            world.pipeline.prepare(batch)
    world.run(batch)
    document = world.document("a.txt")
    assert document is not None
    assert (document.state, document.embedded) == ("completed", document.chunks_total)
    assert max(sizes) <= 5
    with world.backend.database.read() as connection:
        rows = connection.execute(sa.select(schema.chunks).order_by(schema.chunks.c.ordinal)).all()
        (version,) = connection.execute(sa.select(schema.versions)).all()
    assert [row.ordinal for row in rows] == list(range(document.chunks_total))
    assert all(text[row.start : row.end] == row.text for row in rows)
    assert "".join("".join(row.text for row in rows).split()) == "".join(text.split())
    kept = SplitAgain(version.id, version.title, version.media_type, version.text_blob, None)
    stored = _parsed(kept, read_blob(world.backend.blobs, version.text_blob))
    check(stored)
    assert stored.text == text
    assert len(stored.blocks) == 200


def test_windows_hold_every_chunk_once_and_never_too_many() -> None:
    counts = {1: 3, 2: 9_000, 3: 4_000, 4: 96, 5: 1, 6: 4_096}
    seen: Counter[tuple[int, int]] = Counter()
    for window in _windows(counts):
        held = [(v, n) for v in window.versions for n in range(counts[v]) if window.first <= n <= window.last]
        assert 0 < len(held) <= filling.WINDOW_TEXTS
        seen.update(held)
    assert seen == Counter((version, n) for version, count in counts.items() for n in range(count))


def embedded_sizes(world: ByHand) -> list[int]:
    """How many texts each call of the embedder gets, from now on."""
    embedder, sizes = world.backend.embedder(world.live()), list[int]()
    real = embedder.embed_documents

    def counted(texts: Any) -> Any:
        sizes.append(len(texts))
        return real(texts)

    embedder.embed_documents = counted  # type: ignore[method-assign]
    return sizes


class Killed(BaseException):
    """The end of the process, as far as the pipeline can tell."""


def dying_after(calls: int, real: Any) -> Any:
    """The function, until it was called so often."""
    left = iter(range(calls))

    def work(*given: Any, **named: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return real(*given, **named)

    return work
