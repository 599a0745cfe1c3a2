"""Processes that change one catalog at once: nothing is taken twice, lost, or left without what belongs to it.

The processes are real, each with its own catalog and blob store, as on machines of their own.
"""

from __future__ import annotations

import multiprocessing
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from indexes.errors import TryLater
from ingest import intake
from ingest.pipeline import Pipeline
from rag.backend import Backend
from rag.blobs import read_blob
from rag.catalog import batches, documents, schema
from rag.catalog.records import Store
from rag.retrieve import SearchOptions, retrieve
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle
from tests.ingest.by_hand import PlainParser
from tests.s3 import make_bucket

ROUNDS = 15
TEXTS = 2

Told = Any
"""A multiprocessing queue."""


def in_processes(work: Callable[..., None], count: int, *arguments: Any) -> list[Any]:
    """What each of several processes told at its end; all begin at the same time. Fails where one fails."""
    context = multiprocessing.get_context("spawn")
    told, ready = context.Queue(), context.Barrier(count)
    workers = [context.Process(target=_work, args=(work, number, ready, told, *arguments)) for number in range(count)]
    for worker in workers:
        worker.start()
    answers = [told.get(timeout=180) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    for answer in answers:
        assert not isinstance(answer, str), answer
    return answers


def _work(work: Callable[..., Any], number: int, ready: Any, told: Told, folder: Path, url: str, blobs: str) -> None:
    try:
        settings = toy_settings(folder / f"machine {number}", catalog=url, blobs=blobs)
        with open_backend(settings, jobs=False) as backend:
            dawdle(backend)
            ready.wait(timeout=60)
            told.put(work(backend, number))
    except BaseException as error:
        told.put(repr(error))
        raise


def dawdle(backend: Backend) -> None:
    """Pause where others must not come in: between the look for what uses a vector or a blob and its removal, and
    between the look whether a blob is there and its record. Without a lock they do come in then."""

    def pause(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM vectors"):
            time.sleep(0.1)

    sa.event.listen(backend.database.engine, "before_cursor_execute", pause)
    exists, delete = backend.blobs.exists, backend.blobs.delete
    backend.blobs.exists = lambda key: (exists(key), time.sleep(0.01))[0]  # type: ignore[method-assign]
    backend.blobs.delete = lambda keys: (time.sleep(0.01), delete(keys))[1]  # type: ignore[method-assign]


def patiently(act: Callable[[], Any]) -> Any:
    """Do as a caller does who is told to try later."""
    while True:
        try:
            return act()
        except TryLater:
            time.sleep(0.01)


@pytest.fixture
def first(catalog_url: str, tmp_path: Path) -> Any:
    """The catalog and the blobs as the test itself sees them."""
    settings = toy_settings(tmp_path / "first", catalog=catalog_url, blobs=f"file://{tmp_path}/blobs")
    with open_backend(settings, jobs=False) as backend:
        yield backend


def claim_all(backend: Backend, number: int) -> list[int]:
    taken: list[int] = []
    with backend.database.write() as connection:
        worker = batches.join(connection, f"worker {number}")
    for batch in range(1_000):
        with backend.database.write() as connection:
            mine = batches.claim(connection, worker, f"{number}-{batch}", most=3, most_bytes=1 << 20)
        if not mine:
            break
        taken += mine
        time.sleep(0.02)  # so that the others come in between: SQLite does not queue its writers
    return taken


def test_no_document_is_claimed_twice_and_none_is_forgotten(first: Backend, catalog_url: str, tmp_path: Path) -> None:
    store = intake.create_store(first, "s")
    ids = [add_text(first, store, f"{i}.txt", f"Text {i}.").id for i in range(120)]
    answers = in_processes(claim_all, 4, tmp_path, catalog_url, f"file://{tmp_path}/blobs")
    assert sorted(taken for mine in answers for taken in mine) == sorted(ids)
    with first.database.read() as connection:
        batches = Counter(d.batch for d in documents.get_documents(connection, ids))
    assert max(batches.values()) <= 3
    assert sum(map(bool, answers)) > 1, "only one process claimed anything: this tells nothing"


def put_and_take_away(backend: Backend, number: int) -> int:
    """Put documents of two texts that all processes share, work on them, delete all but the last: whoever deletes
    purges chunks and vectors of texts that another is about to write, or has just found to have a vector."""
    chance, store = random.Random(number), backend.find_store("s")
    done = 0
    for round_ in range(ROUNDS):
        batch, source = f"{number}-{round_}", f"{number}.txt"
        text = f"Text {chance.randrange(TEXTS)} that several share."
        document = patiently(lambda source=source, text=text: add_text(backend, store, source, text))
        with backend.database.write() as connection:
            mine = sa.and_(schema.documents.c.id == document.id, schema.documents.c.batch.is_(None))
            connection.execute(sa.update(schema.documents).where(mine).values(batch=batch))
        pipeline = Pipeline(backend, PlainParser())  # type: ignore[arg-type]
        for step in (pipeline.prepare, pipeline.embed, pipeline.publish):
            patiently(lambda step=step, batch=batch: step(batch))
        # At once: the next one with the same text would bring a lost vector back.
        assert without_vector(backend, document.id) == 0
        done += 1
        if round_ < ROUNDS - 1:
            patiently(lambda document=document: intake.delete_documents(backend, [document]))
    return done


def without_vector(backend: Backend, document_id: int) -> int:
    chunks, versions, vectors = schema.chunks.c, schema.versions.c, schema.vectors.c
    held = sa.select(vectors.space_id).where(vectors.embedding_key == chunks.embedding_key).exists()
    query = sa.select(sa.func.count(chunks.id)).join(schema.versions, versions.id == chunks.version_id)
    with backend.database.read() as connection:
        return int(connection.execute(query.where(versions.document_id == document_id, ~held)).scalar_one())


def test_purging_beside_writing_leaves_every_chunk_its_vector_and_no_vector_alone(
    first: Backend, catalog_url: str, tmp_path: Path
) -> None:
    store = intake.create_store(first, "s")
    assert in_processes(put_and_take_away, 3, tmp_path, catalog_url, f"file://{tmp_path}/blobs") == [ROUNDS] * 3
    intake.sweep(first)
    assert_whole(first, store)
    assert first.view(first.live_generation(store)).vectors.ids().tolist() == _chunk_ids(first)


def upload_and_forget(backend: Backend, number: int) -> list[str]:
    """Upload the same few files over and over and forget most: what one deletes, another has just sent."""
    chance, kept = random.Random(number), []
    for _ in range(ROUNDS * 4):
        content = f"Content {chance.randrange(3)}".encode()
        file = patiently(lambda content=content: intake.upload(backend, "a.txt", "assistants", [content]))
        assert read_blob(backend.blobs, file.blob) == content
        if chance.random() < 0.9:
            patiently(lambda file=file: intake.delete_file(backend, file))
        else:
            kept.append(file.blob)
        if chance.random() < 0.1:
            patiently(lambda: intake.sweep_blobs(backend, older_than=-60.0))
    return kept


def test_what_was_uploaded_is_there_whatever_others_delete(first: Backend, catalog_url: str, tmp_path: Path) -> None:
    answers = in_processes(upload_and_forget, 4, tmp_path, catalog_url, f"file://{tmp_path}/blobs")
    kept = {key for mine in answers for key in mine}
    with first.database.read() as connection:
        recorded = set(connection.execute(sa.select(schema.files.c.blob)).scalars())
    assert kept == recorded
    assert {key for keys in first.blobs.keys(-60.0) for key in keys} == kept
    assert all(read_blob(first.blobs, key) for key in kept)


def test_a_corpus_lives_in_any_catalog_and_in_s3(catalog_url: str, s3: str, tmp_path: Path) -> None:
    """The whole way, with the jobs: taken in, replaced, searched in another process's view, deleted, swept."""
    remote = make_bucket(s3, f"corpus-{secrets.token_hex(6)}")
    settings = toy_settings(tmp_path / "a", catalog=catalog_url, blobs=remote)
    with (
        open_backend(settings) as backend,
        open_backend(toy_settings(tmp_path / "b", catalog=catalog_url, blobs=remote), jobs=False) as other,
    ):
        store = intake.create_store(backend, "s")
        add_text(backend, store, "zebra.md", "# Zebra\n\nA zebra has stripes.", {"kind": "animal"})
        add_text(backend, store, "violin.txt", "A violin has strings.", {"kind": "tool"})
        add_text(backend, store, "empty.txt", b"")
        wait_until_idle(backend)
        ends = {source: d.state for source, d in all_documents(backend, store).items()}
        assert ends == {"zebra.md": "completed", "violin.txt": "completed", "empty.txt": "failed"}
        assert found(other, store, "stripes") == "zebra.md"
        add_text(other, store, "zebra.md", "An okapi has legs.")
        wait_until_idle(backend)
        assert found(other, store, "okapi legs") == "zebra.md"
        current = intake.current_text(other, all_documents(other, store)["zebra.md"])
        assert str(current).strip() == "An okapi has legs."
        assert_whole(backend, store)
        intake.delete_store(other, store)
        intake.sweep(other)
        intake.sweep_blobs(other, older_than=-60.0)
        assert _chunk_ids(backend) == []
        assert [key for keys in backend.blobs.keys(-60.0) for key in keys] == []


def found(backend: Backend, store: Store, question: str) -> str:
    hits = retrieve(backend, [store], question, SearchOptions(limit=1)).candidates
    return hits[0].filename


def assert_whole(backend: Backend, store: Store) -> None:
    """Every chunk of what answers has its vector, every vector a chunk, every blob a name and every name a blob."""
    with backend.database.read() as connection:
        held = set(connection.execute(sa.select(schema.chunks.c.embedding_key)).scalars())
        vectors = set(connection.execute(sa.select(schema.vectors.c.embedding_key)).scalars())
        versions = connection.execute(sa.select(schema.versions).where(schema.versions.c.purged == sa.false())).all()
        originals = set(connection.execute(sa.select(schema.files.c.blob)).scalars())
    assert held == vectors
    assert held
    blobs = {key for keys in backend.blobs.keys(-60.0) for key in keys}
    assert blobs == originals | {version.text_blob for version in versions}
    completed = [d for d in all_documents(backend, store).values() if d.state == "completed"]
    assert sorted(version.document_id for version in versions) == sorted(d.id for d in completed)


def _chunk_ids(backend: Backend) -> list[int]:
    with backend.database.read() as connection:
        return list(connection.execute(sa.select(schema.chunks.c.id).order_by(schema.chunks.c.id)).scalars())
