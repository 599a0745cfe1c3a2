"""How much work is done, counted rather than timed: a regression of any of these is slow on every machine.

The bounds are what was counted when they were written, and hardly more. Where a change does less, lower them; where
one does more, the change says why.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.split import embedding_text
from rag import snapshots
from rag.catalog import schema
from rag.embedders.toy import ToyEmbedder
from rag.retrieve import SearchOptions, retrieve
from tests.backends import add_text, toy_settings
from tests.ingest.by_hand import ByHand, by_hand

DOCUMENTS = 24
CHUNKS = 6 * DOCUMENTS
WORDS = (
    "river",
    "stone",
    "harbour",
    "winter",
    "letter",
    "garden",
    "engine",
    "copper",
    "meadow",
    "signal",
    "basket",
    "thunder",
)


def text_of(number: int) -> str:
    """A document of its own, that makes six chunks."""
    paragraphs = [
        " ".join(WORDS[(number * 7 + part * 5 + place) % len(WORDS)] + str(number * part) for place in range(24)) + "."
        for part in range(1, 9)
    ]
    return "\n\n".join(paragraphs)


class Count:
    """What was done in a block."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.commits = 0
        self.written = 0
        """Bytes handed to the kernel by this process, for files and pipes alike."""


@contextmanager
def counting(engine: sa.Engine, *, thread: int | None = None) -> Iterator[Count]:
    """Count what this process does meanwhile, or only what this thread says to the database."""
    count = Count()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if thread in (None, threading.get_ident()):
            count.statements.append(statement)

    def committed(_connection: Any) -> None:
        count.commits += 1

    sa.event.listen(engine, "before_cursor_execute", note)
    sa.event.listen(engine, "commit", committed)
    before = written()
    try:
        yield count
    finally:
        count.written = written() - before
        sa.event.remove(engine, "before_cursor_execute", note)
        sa.event.remove(engine, "commit", committed)


def written() -> int:
    """Bytes that this process has handed to the kernel so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The texts of each call to the embedder, for documents and questions alike."""
    calls: list[Sequence[str]] = []
    embed = ToyEmbedder.embed_documents

    def counted(self: ToyEmbedder, texts: Sequence[str]) -> Any:
        calls.append(list(texts))
        return embed(self, texts)

    monkeypatch.setattr(ToyEmbedder, "embed_documents", counted)
    return calls


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(toy_settings(tmp_path, **{"ingest.chunk_tokens": 100})) as made:
        yield made


def ingested(installation: ByHand) -> Count:
    """Take the documents in as one batch."""
    with counting(installation.backend.database.engine) as count:
        for number in range(DOCUMENTS):
            add_text(installation.backend, installation.store, f"{number}.txt", text_of(number))
        installation.run(installation.claimed())
    return count


def chunks_of(installation: ByHand) -> list[str]:
    """What is embedded of each chunk."""
    with installation.backend.database.read() as connection:
        rows = connection.execute(sa.select(schema.chunks.c.header, schema.chunks.c.text)).all()
    return [embedding_text(row.header, row.text) for row in rows]


def test_a_text_is_embedded_once_and_in_company(installation: ByHand, embedded: list[Sequence[str]]) -> None:
    embedded.clear()
    ingested(installation)
    texts = chunks_of(installation)
    assert len(texts) == CHUNKS
    assert len(embedded) == 1
    assert len(set(texts)) < CHUNKS  # some stand in two documents
    assert sorted(embedded[0]) == sorted(set(texts))

    embedded.clear()
    add_text(installation.backend, installation.store, "0.txt", text_of(0))
    installation.put("copy of 3.txt", text_of(3))
    assert embedded == []
    installation.put("0.txt", f"{text_of(0)}\n\n{text_of(DOCUMENTS)}")
    new = set(chunks_of(installation)) - set(texts)
    assert sorted(text for call in embedded for text in call) == sorted(new)


def test_an_ingestion_takes_few_statements_commits_and_bytes(installation: ByHand) -> None:
    count = ingested(installation)
    assert len(chunks_of(installation)) == CHUNKS
    assert len(count.statements) <= 18 * DOCUMENTS
    assert count.commits <= 2.5 * DOCUMENTS
    assert 1_000 < count.written / CHUNKS <= 14_000  # most of it by the many commits of so short documents


def test_a_query_reads_twice_and_embeds_once(installation: ByHand, embedded: list[Sequence[str]]) -> None:
    ingested(installation)
    retrieve(installation.backend, [installation.store], "river1 stone1", SearchOptions())  # opens the view
    for question, calls in (("winter2 letter2", 1), ("winter2 letter2", 0)):
        embedded.clear()
        with counting(installation.backend.database.engine, thread=threading.get_ident()) as count:
            found = retrieve(installation.backend, [installation.store], question, SearchOptions(limit=10))
        assert len(found.candidates) == 10
        assert len(embedded) == calls
        reads = [statement for statement in count.statements if statement != "BEGIN"]
        assert len(reads) == 2, "what answers and how far it is; the hits"
        assert all(statement.startswith("SELECT") for statement in reads)


def test_a_snapshot_is_written_once_for_what_changed(installation: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    save = snapshots.save
    monkeypatch.setattr(snapshots, "save", lambda *given: (saved.append(given), save(*given))[1])
    ingested(installation)
    for question in ("river1", "stone2"):
        retrieve(installation.backend, [installation.store], question, SearchOptions())
    assert not saved  # too little to be worth it
    view = installation.backend.view(installation.live())
    for _ in range(3):
        view.save_if_due(least=1)
    assert len(saved) == 1
