"""Ingestion always ends: states, typed errors, retries, deletes at any moment, batches that die."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.readiness import Readiness
from indexes.errors import NotThere, TryLater
from ingest import intake
from ingest.pipeline import Pipeline
from ingest.runner import Runner
from rag.catalog import batches, purge, schema
from rag.catalog.database import Database
from rag.catalog.records import Document, Store
from rag.embedders.toy import ToyEmbedder
from rag.retrieve import SearchOptions, retrieve
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_good_and_bad_files_end_each_in_its_own_way(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "good.md", "# Title\n\nSome text about lighthouses.")
        add_text(backend, store, "empty.txt", b"")
        add_text(backend, store, "blank.txt", " \n\t\n ")
        add_text(backend, store, "program.txt", b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 8)
        add_text(backend, store, "broken.pdf", b"%PDF-1.7\nnot really")
        add_text(backend, store, "also good.txt", "Some text about windmills.")
        wait_until_idle(backend)
        there = all_documents(backend, store)
        codes = {source: (d.state, d.error_code) for source, d in there.items()}
        assert codes == {
            "good.md": ("completed", None),
            "empty.txt": ("failed", "empty"),
            "blank.txt": ("failed", "empty"),
            "program.txt": ("failed", "unsupported_file"),
            "broken.pdf": ("failed", "invalid_file"),
            "also good.txt": ("completed", None),
        }
        assert all(d.error_message for d in there.values() if d.state == "failed")
        assert there["good.md"].embedded == there["good.md"].chunks_total == 1


def test_the_same_content_twice_is_two_documents_embedded_once(tmp_path: Path) -> None:
    text = "# One\n\nThe same words in two places."
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.md", text)
        add_text(backend, store, "b.md", text)
        wait_until_idle(backend)
        add_text(backend, store, "c.md", text)
        wait_until_idle(backend)
        there = all_documents(backend, store)
        assert sum(d.embedded for d in there.values()) == 1
        hits = retrieve(backend, [store], "same words", SearchOptions()).candidates
        assert sorted(hit.filename for hit in hits) == ["a.md", "b.md", "c.md"]


def test_chunks_are_exact_slices_of_the_stored_text(tmp_path: Path) -> None:
    text = "# Übergröße\n\n" + "\n\n".join(f"## Part {i}\n\n" + f"Wörter und Wörter {i}. " * 60 for i in range(5))
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.md", text)
        wait_until_idle(backend)
        stored = intake.current_text(backend, all_documents(backend, store)["a.md"])
        assert stored is not None
        with backend.database.read() as connection:
            rows = connection.execute(sa.select(schema.chunks).order_by(schema.chunks.c.ordinal)).all()
        assert len(rows) == 5
        assert [row.ordinal for row in rows] == list(range(len(rows)))
        for row in rows:
            assert stored[row.start : row.end] == row.text
            embedded = f"{row.header}\n{row.text}" if row.header else row.text
            assert hashlib.sha256(embedded.encode()).digest()[:16] == row.embedding_key


def test_an_edit_embeds_only_what_changed(tmp_path: Path) -> None:
    parts = [f"## Part {i}\n\n" + f"Words of part {i} and more. " * 80 for i in range(6)]
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.md", "# Book\n\n" + "\n\n".join(parts))
        wait_until_idle(backend)
        first = all_documents(backend, store)["a.md"]
        parts[3] = parts[3].replace("more", "less", 1)
        add_text(backend, store, "a.md", "# Book\n\n" + "\n\n".join(parts))
        wait_until_idle(backend)
        second = all_documents(backend, store)["a.md"]
        assert second.chunks_total == first.chunks_total >= 12
        assert second.embedded == 1


def test_cancel_and_retry(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    with open_backend(settings, jobs=False) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about herons.")
        document = all_documents(backend, store)["a.txt"]
        assert intake.cancel(backend, document)
        assert not intake.cancel(backend, all_documents(backend, store)["a.txt"])
    with open_backend(settings) as backend:
        wait_until_idle(backend)
        assert all_documents(backend, store)["a.txt"].state == "cancelled"
        assert intake.retry(backend, all_documents(backend, store)["a.txt"])
        wait_until_idle(backend)
        assert all_documents(backend, store)["a.txt"].state == "completed"
        assert not intake.retry(backend, all_documents(backend, store)["a.txt"])


def test_deleting_and_replacing_while_work_goes_on_leaves_nothing_behind(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        for step in range(60):
            add_text(backend, store, f"{step % 20}.txt", f"Text {step} " + "about otters. " * (step % 7 * 50 + 1))
            if step % 3 == 0:
                there = all_documents(backend, store)
                intake.delete_documents(backend, [there[sorted(there)[step % len(there)]]])
        wait_until_idle(backend)
        there = all_documents(backend, store)
        assert {d.state for d in there.values()} == {"completed"}
        time.sleep(0.5)
        intake.sweep(backend)
        assert_nothing_is_left_over(backend, len(there))


def assert_nothing_is_left_over(backend: object, count: int) -> None:
    from rag.backend import Backend

    assert isinstance(backend, Backend)
    with backend.database.read() as connection:
        versions = connection.execute(sa.select(schema.versions).where(schema.versions.c.purged == sa.false())).all()
        assert len(versions) == count
        used = {row.text_blob for row in versions}
        used |= set(connection.execute(sa.select(schema.files.c.blob)).scalars())
        orphans = sa.select(schema.chunks.c.id).where(schema.chunks.c.version_id.not_in([row.id for row in versions]))
        assert connection.execute(orphans).all() == []
    assert {path.name for path in (backend.folder / "blobs").glob("??/*")} == used


def test_blobs_that_a_crash_left_are_swept_once_they_are_old(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about rails.")
        wait_until_idle(backend)
        before = {path.name for path in (tmp_path / "blobs").glob("??/*")}
        left = backend.blobs.put([b"never recorded"])
        assert intake.sweep_blobs(backend) == 0
        assert intake.sweep_blobs(backend, older_than=-1.0) == 1
        assert not backend.blobs.exists(left.key)
        assert {path.name for path in (tmp_path / "blobs").glob("??/*")} == before


def test_stopping_in_the_middle_fails_nothing(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    for _ in range(4):
        with open_backend(settings) as backend:
            try:
                store = backend.find_store("s")
            except NotThere:
                store = intake.create_store(backend, "s")
            before = len(all_documents(backend, store))
            for i in range(30):
                add_text(backend, store, f"{before + i}.txt", f"Text {i} about grebes. " * 200)
            time.sleep(0.3)
        with open_backend(settings, jobs=False) as backend:
            states = {d.state for d in all_documents(backend, store).values()}
            assert not states & {"failed", "cancelled"}
    with open_backend(settings) as backend:
        wait_until_idle(backend)
        assert {d.state for d in all_documents(backend, store).values()} == {"completed"}


def test_a_step_that_stopping_broke_off_is_resumed_not_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(tmp_path)
    with open_backend(settings, jobs=False) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about grebes.")
        runner = Runner(backend)
        real = Pipeline.prepare
        monkeypatch.setattr(Pipeline, "prepare", lambda self, batch: runner._stop.wait() and real(self, batch))
        wait_for(lambda: bool(runner._running))
        # The runner's own thread, asleep, is slower to stop than the step.
        runner._stop.set()
        time.sleep(0.1)
        runner.close()
        monkeypatch.undo()
    with open_backend(settings) as backend:
        wait_until_idle(backend)
        assert {d.state for d in all_documents(backend, store).values()} == {"completed"}


def test_a_fault_in_starting_a_workflow_does_not_end_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbos import DBOS

    faults = iter(range(5))
    real = DBOS.start_workflow

    def faulty(*given: object) -> object:
        if next(faults, None) is not None:
            raise sa.exc.OperationalError("INSERT", None, Exception("database or disk is full"))
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(DBOS, "start_workflow", faulty)
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about coots.")
        wait_until_idle(backend, 20.0)
        assert {d.state for d in all_documents(backend, store).values()} == {"completed"}


@pytest.mark.parametrize("name", ["jobs.db", "jobs.lock"])
def test_a_runner_that_cannot_start_says_so_and_tries_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ingest.runner.START_EVERY", 0.1)
    (tmp_path / name).mkdir()
    with open_backend(toy_settings(tmp_path), jobs=False) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about dippers.")
        with closing(Runner(backend)) as runner:
            readiness = Readiness(backend, runner, warm=False)
            wait_for(lambda: runner.fault is not None)
            assert "Jobs do not run" in readiness.missing()[0]
            time.sleep(1.2)
            assert caplog.text.count("could not start") == 1
            (tmp_path / name).rmdir()
            wait_until_idle(backend)
            assert readiness.missing() == []
        assert all_documents(backend, store)["a.txt"].state == "completed"


def test_a_runner_that_could_not_open_its_lock_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "one" / "jobs.lock").mkdir(parents=True)
    with open_backend(toy_settings(tmp_path / "one")), open_backend(toy_settings(tmp_path / "two")) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about ouzels.")
        wait_until_idle(backend, 20.0)


def test_workflows_that_succeeded_and_old_marks_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbos import DBOS

    monkeypatch.setattr("ingest.runner.FORGET_EVERY", 3)
    monkeypatch.setattr(purge, "KEPT_CHANGES", 2)
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        for text in ("one", "two", "three", "four", "five"):
            add_text(backend, store, "a.txt", f"A text about {text} ducks.")
            wait_until_idle(backend)
            # Its documents end a moment before the workflow does.
            wait_for(lambda: not DBOS.list_workflows(status=["PENDING", "ENQUEUED"]))
        wait_for(lambda: len(DBOS.list_workflows(status="SUCCESS")) == 3)

        def versions() -> int:
            with backend.database.read() as connection:
                return int(connection.execute(sa.select(sa.func.count()).select_from(schema.versions)).scalar_one())

        wait_for(lambda: versions() == 3)
        hits = retrieve(backend, [store], "ducks", SearchOptions()).candidates
        assert [hit.text for hit in hits] == ["A text about five ducks."]


def test_bytes_go_only_once_their_records_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_backend(toy_settings(tmp_path), jobs=False) as backend:
        store = intake.create_store(backend, "s")
        document = add_text(backend, store, "a.txt", "A text about teals.")
        same = intake.upload(backend, "same.txt", "assistants", [b"A text about teals."])
        real, seen = backend.blobs.delete, []

        def deleting(keys: list[str]) -> None:
            with Database(f"sqlite:///{tmp_path / 'catalog.db'}").read() as connection:
                seen.append(connection.execute(sa.select(schema.files.c.id).where(schema.files.c.blob.in_(keys))).all())
            real(keys)

        monkeypatch.setattr(backend.blobs, "delete", deleting)
        intake.delete_documents(backend, [document])
        assert seen == []
        assert backend.blobs.exists(same.blob)
        intake.delete_file(backend, same)
        assert seen == [[]]
        assert not backend.blobs.exists(same.blob)


def test_cancelling_purges_what_was_written_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        stuck = threading.Event()
        monkeypatch.setattr(ToyEmbedder, "embed_documents", lambda *_: stuck.wait(20) and 1 / 0)
        add_text(backend, store, "a.txt", "A text about pochards.")
        wait_for(lambda: all_documents(backend, store)["a.txt"].state == "embedding")
        assert intake.cancel(backend, all_documents(backend, store)["a.txt"])
        with backend.database.read() as connection:
            assert connection.execute(sa.select(schema.chunks.c.id)).all() == []
        monkeypatch.undo()
        stuck.set()


def test_a_document_deleted_while_it_is_embedded_leaves_no_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ToyEmbedder.embed_documents
    gone: list[Document] = []

    def deleting(self: ToyEmbedder, texts: object) -> object:
        intake.delete_documents(backend, gone[:1])
        return real(self, texts)  # type: ignore[arg-type]

    with open_backend(toy_settings(tmp_path), jobs=False) as backend:
        store = intake.create_store(backend, "s")
        monkeypatch.setattr(ToyEmbedder, "embed_documents", deleting)
        gone.append(add_text(backend, store, "a.txt", "A text about rails."))
        add_text(backend, store, "b.txt", "A text about crakes.")
        runner = Runner(backend)
        wait_until_idle(backend)
        runner.close()
        with backend.database.read() as connection:
            held = connection.execute(sa.select(sa.func.count()).select_from(schema.vectors)).scalar_one()
        assert held == 1


def test_a_file_or_store_deleted_before_it_is_attached_is_not_there(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path), jobs=False) as backend:
        store = intake.create_store(backend, "s")
        file = intake.upload(backend, "a.txt", "assistants", [b"A text."])
        other = intake.upload(backend, "b.txt", "assistants", [b"A text."])
        intake.delete_file(backend, file)
        with pytest.raises(NotThere, match="file"):
            intake.attach(backend, store, [intake.NewDocument(file)])
        intake.delete_store(backend, store)
        with pytest.raises(NotThere, match="vector store"):
            intake.attach(backend, store, [intake.NewDocument(other)])


def test_an_embedder_that_is_down_is_tried_again_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = ToyEmbedder.embed_documents

    def down(self: ToyEmbedder, texts: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise TryLater("The embedder does not answer.")
        return real(self, texts)  # type: ignore[arg-type]

    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        monkeypatch.setattr(ToyEmbedder, "embed_documents", down)
        add_text(backend, store, "a.txt", "A text about newts.")
        wait_until_idle(backend)
        assert all_documents(backend, store)["a.txt"].state == "completed"
        assert calls == 3


def test_a_fault_of_the_embedder_ends_the_batch_with_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ToyEmbedder, texts: object) -> object:
        raise ValueError("a fault nobody thought of")

    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        monkeypatch.setattr(ToyEmbedder, "embed_documents", broken)
        add_text(backend, store, "a.txt", "A text about toads.")
        wait_until_idle(backend)
        failed = all_documents(backend, store)["a.txt"]
        assert (failed.state, failed.error_code) == ("failed", "server_error")
        assert "nobody thought of" not in str(failed.error_message)


def test_a_batch_that_died_is_taken_apart_and_its_documents_end(tmp_path: Path) -> None:
    from dbos import DBOS

    settings = toy_settings(tmp_path)
    with open_backend(settings, jobs=False) as backend:
        store = intake.create_store(backend, "s")
        for i in range(3):
            add_text(backend, store, f"{i}.txt", f"Text {i} about storks.")
        with backend.database.write() as connection:
            assert len(batches.claim(connection, batches.join(connection, "died"), "f" * 32, 8, 1 << 20)) == 3
    # A batch without a workflow: the process died between the claim and the start.
    with open_backend(settings) as backend:
        wait_until_idle(backend)
        assert {d.state for d in all_documents(backend, store).values()} == {"completed"}
        # A workflow that has ended while its documents have not.
        wait_for(lambda: bool(DBOS.list_workflows(status="SUCCESS")))
        ended = DBOS.list_workflows(status="SUCCESS")[0].workflow_id
        with backend.database.write() as connection:
            worker = connection.execute(sa.select(schema.workers.c.id)).scalar_one()
            connection.execute(sa.delete(schema.batches))
            connection.execute(sa.insert(schema.batches).values(name=ended, worker_id=worker))
            connection.execute(sa.update(schema.documents).values(state="embedding", batch=ended))
        backend.work_waiting.set()
        wait_until_idle(backend)
        again = all_documents(backend, store)
        assert {d.state for d in again.values()} == {"completed"}
        assert {d.attempt for d in again.values()} == {3}


def test_only_one_process_runs_the_jobs_and_another_takes_over(tmp_path: Path) -> None:
    from ingest.runner import Runner
    from rag.backend import Backend

    settings = toy_settings(tmp_path)
    with open_backend(settings) as first:
        store = intake.create_store(first, "s")
        second = Backend(settings)
        waiting = Runner(second)
        assert not waiting.ready.wait(1.0)
        assert not waiting.runs_here
        add_text(second, store, "a.txt", "A text about terns.")
        wait_until_idle(second)
    # Within one process DBOS is a singleton, so that the takeover itself is tried by the campaign of kills.
    waiting.close()
    import asyncio

    asyncio.run(second.close())


def test_embedding_happens_once_for_batches_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    lock = threading.Lock()
    real = ToyEmbedder.embed_documents

    def counted(self: ToyEmbedder, texts: list[str]) -> object:
        with lock:
            seen.extend(texts)
        return real(self, texts)

    with open_backend(toy_settings(tmp_path, ingest__batch_documents=2)) as backend:
        store = intake.create_store(backend, "s")
        monkeypatch.setattr(ToyEmbedder, "embed_documents", counted)
        for i in range(24):
            add_text(backend, store, f"{i}.txt", f"Text {i % 3} about plovers.")
        wait_until_idle(backend)
        assert sorted(seen) == [f"Text {i} about plovers." for i in range(3)]


def test_the_pipeline_resumes_in_the_middle(tmp_path: Path) -> None:
    """Each step repeated, and abandoned at every border, gives what one smooth run gives."""
    from ingest.sandbox import ParseLimits, ParserPool

    settings = toy_settings(tmp_path / "data")
    parsers = ParserPool(ParseLimits(), tmp_path / "scratch")
    try:
        with open_backend(settings, jobs=False) as backend:
            store: Store = intake.create_store(backend, "s")
            for i in range(4):
                add_text(backend, store, f"{i}.txt", f"Text {i} about curlews. " * 100)
            with backend.database.write() as connection:
                batches.claim(connection, batches.join(connection, "one"), "b", 8, 1 << 20)
            for _ in range(2):
                Pipeline(backend, parsers).prepare("b")
            for _ in range(2):
                Pipeline(backend, parsers).embed("b")
            assert retrieve(backend, [store], "curlews", SearchOptions()).candidates == ()
            for _ in range(2):
                Pipeline(backend, parsers).publish("b")
            there = all_documents(backend, store)
            assert {d.state for d in there.values()} == {"completed"}
            assert all(d.chunks_total == d.chunks_done for d in there.values())
            assert_nothing_is_left_over(backend, 4)
    finally:
        parsers.close()
