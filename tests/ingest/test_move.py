"""Moving an installation: everything arrives as it was, once, and nobody writes to two places."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from indexes.errors import ChangeRequest, NotThere, RagError, TryLater
from ingest import drift, evaluations, intake, move
from ingest.arms import EvaluationRequest
from rag import ab_tests, question_sets
from rag.access import Caller
from rag.ask import Ask, prepare
from rag.backend import Backend
from rag.blobs import StoredBlob, read_blob
from rag.blobs.folder import BlobFolder
from rag.catalog import batches, copying, files, mirrored, moves, schema
from rag.catalog.ab_tests import Arm
from rag.catalog.database import Database, incarnation, open_database
from rag.catalog.mirrored import Comparison
from rag.retrieve import SearchOptions, retrieve
from rag.settings import Settings, secret
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle
from tests.postgres import Postgres

WORDS = ["kettle", "boat", "lamp", "library", "cheese", "orbit", "violin", "granite"]
QUESTIONS = [f"{a} {b}" for a in WORDS for b in WORDS if a < b]
ROOT = Path(__file__).resolve().parents[2]


def quiet(*_: object) -> None:
    """Progress that nobody watches."""


def text_of(number: int) -> str:
    said = " ".join(
        f"The {WORDS[(number * k) % 8]} of house {number} met the {WORDS[(number + k) % 8]}." for k in range(9)
    )
    return f"# House {number}\n\n{said}\n"


def fill(settings: Settings, documents: int = 12) -> None:
    """A store with documents in every state, completed, replaced, deleted, failed and waiting, an evaluation that
    waits, and what was compared on live users and questions."""
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "houses")
        for number in range(documents):
            add_text(backend, store, f"{number}.md", text_of(number), {"number": number, "ratio": number / 7, "ä": "ß"})
        wait_until_idle(backend)
        add_text(backend, store, "1.md", text_of(101))
        add_text(backend, store, "empty.md", "")
        wait_until_idle(backend)
        intake.delete_documents(backend, [all_documents(backend, store)[f"{documents - 1}.md"]])
    with open_backend(settings, jobs=False) as backend:
        add_text(backend, backend.find_store("houses"), "waiting.md", text_of(102))
        question_sets.create(backend, "about houses", ['{"question": "Ä?", "labels": [{"document": "2.md"}]}'])
        told = {"vector_store_id": "houses", "question_set": "about houses", "arms": [{"name": "a"}]}
        drift.freeze(backend, backend.find_store("houses"), "about houses")
        evaluations.submit(backend, EvaluationRequest.model_validate(told))
        compare_live(backend)


def compare_live(backend: Backend) -> None:
    """An A/B test with the trace of an answer, and a mirrored question."""
    store = backend.find_store("houses")
    ab_tests.create(backend, "tones", [Arm("a", 1 / 3, None, None), Arm("b", 2 / 3, "answer", None)])
    asked = Ask((store,), ({"role": "user", "content": QUESTIONS[0]},))
    prepare(backend, ab_tests.assigned(backend, asked, "ada"))
    backend.traces.flush()
    live = backend.live_generation(store).id
    with backend.database.write() as connection:
        mirrored.add(connection, [Comparison(live, live, 1 / 3, 2 / 3, 1.5), Comparison(live, live, 1.0, error="gone")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a filled installation, to be copied."""
    made = tmp_path_factory.mktemp("filled") / "data"
    fill(toy_settings(made, ingest__chunk_tokens=32))
    return made


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The database and the data folder of another one, over PostgreSQL, to be copied."""
    made = tmp_path_factory.mktemp("filled") / "data"
    with postgres.database() as url:
        fill(toy_settings(made, catalog=url, ingest__chunk_tokens=32))
        yield url.rpartition("/")[2], made


@pytest.fixture(params=["sqlite-sqlite", "sqlite-postgresql", "postgresql-sqlite"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Settings, Settings]]:
    """A filled installation and the settings of an empty one."""
    source, target = request.param.split("-")
    places: dict[str, str] = {}
    with ExitStack() as stack:
        if source == "postgresql":
            database, data = request.getfixturevalue("server")
            places["source"] = stack.enter_context(request.getfixturevalue("postgres").database(like=database))
        else:
            data = request.getfixturevalue("folder")
        if target == "postgresql":
            places["target"] = stack.enter_context(request.getfixturevalue("postgres").database())
        shutil.copytree(data, tmp_path / "source")
        yield (
            toy_settings(tmp_path / "source", catalog=places.get("source")),
            toy_settings(tmp_path / "target", catalog=places.get("target")),
        )


@pytest.fixture
def simple(folder: Path, tmp_path: Path) -> tuple[Settings, Settings]:
    """A filled installation and an empty one, each in a folder."""
    shutil.copytree(folder, tmp_path / "source")
    return toy_settings(tmp_path / "source"), toy_settings(tmp_path / "target")


def database(settings: Settings, *, mover: bool = True) -> Database:
    return open_database(settings.data, secret(settings.catalog), mover=mover)


def rows(settings: Settings, table: sa.Table) -> list[dict[str, Any]]:
    with closing(database(settings)) as opened, opened.read() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]


def everything(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """All rows, as the test reads them itself; a batch's worker is not part of it."""
    found = {table.name: rows(settings, table) for table in copying.COPIED}
    for row in found["batches"]:
        row["worker_id"] = None
    return found


def answers(settings: Settings) -> dict[str, list[tuple[int, float]]]:
    """The exact top 10 of every question: chunk and cosine."""
    with open_backend(settings, jobs=False) as backend:
        store = backend.find_store("houses")
        return {
            question: [
                (hit.chunk_id, hit.dense)
                for hit in retrieve(backend, [store], question, SearchOptions(mode="dense", limit=10)).candidates
            ]
            for question in QUESTIONS
        }


def steps(source: Settings, target: Settings) -> Any:
    return move.opened(source, target, quiet)


# ---- what arrives ----------------------------------------------------------------------------------------------------


def test_everything_arrives_as_it_was(ends: tuple[Settings, Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = ends
    # In this order: that a store was asked is noted in it.
    expected, before = answers(source), everything(source)
    with monkeypatch.context() as patch:
        patch.setattr("rag.embedders.open_embedder", lambda spec: pytest.fail("a move embeds nothing"))
        report = move.move(source, target, quiet)
    assert everything(target) == before
    assert {name: sum_.rows for name, sum_ in report.tables.items()} == {name: len(r) for name, r in before.items()}
    assert report.tables["vectors"].rows > 20
    keys = {row["blob"] for row in before["files"]} | {r["text_blob"] for r in before["versions"] if not r["purged"]}
    assert report.blobs == len(keys)
    arrived = BlobFolder(target.data / "blobs")
    assert {key for page in arrived.keys(-60) for key in page} == keys
    assert answers(target) == expected


def test_work_goes_on_at_the_other_end_and_no_id_is_given_twice(ends: tuple[Settings, Settings]) -> None:
    source, target = ends
    with closing(database(source)) as opened, opened.write() as connection:
        # An id beyond every row that is left.
        gone = files.add_file(connection, Caller("default"), "gone", "assistants", StoredBlob("0" * 64, 1))
        files.drop_file(connection, gone)
    used = {row["id"] for row in rows(source, schema.chunks)}
    move.move(source, target, quiet)
    with open_backend(target) as backend:
        wait_until_idle(backend)
        store = backend.find_store("houses")
        assert all_documents(backend, store)["waiting.md"].state == "completed"
        file = intake.upload(backend, "new", "assistants", [b"new"])
        assert file.id > gone.id
    last = max(used)
    assert min(row["id"] for row in rows(target, schema.chunks) if row["id"] not in used) > last


def test_a_batch_that_was_at_work_is_adopted_with_what_was_done(simple: tuple[Settings, Settings]) -> None:
    source, target = simple
    with closing(database(source)) as opened, opened.write() as connection:
        worker = batches.join(connection, "one that is far away")
        (taken,) = batches.claim(connection, worker, "b" * 32, 1, 1 << 20)
    move.move(source, target, quiet)
    assert rows(target, schema.workers) == []
    with open_backend(target) as backend:
        wait_until_idle(backend)
        (document,) = [d for d in all_documents(backend, backend.find_store("houses")).values() if d.id == taken]
        assert (document.state, document.attempt) == ("completed", 2)


def test_several_pages_and_keys_of_bytes(simple: tuple[Settings, Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PAGE", 3)
    monkeypatch.setattr(move, "BLOBS_A_PAGE", 4)
    source, target = simple
    before = everything(source)
    move.move(source, target, quiet)
    assert everything(target) == before


def test_the_target_is_another_incarnation(simple: tuple[Settings, Settings]) -> None:
    source, target = simple
    move.move(source, target, quiet)
    found = []
    for settings in (source, target):
        with closing(database(settings)) as opened, opened.read() as connection:
            found.append(incarnation(connection))
    assert found[0] != found[1]


def test_back_again(simple: tuple[Settings, Settings], tmp_path: Path) -> None:
    source, target = simple
    before = everything(source)
    move.move(source, target, quiet)
    home = toy_settings(tmp_path / "home")
    move.move(target, home, quiet)
    assert everything(home) == before
    with pytest.raises(ChangeRequest) as refused:
        move.move(target, source, quiet)
    assert refused.value.code == "moved"


def test_blobs_alone_and_an_engine_alone(simple: tuple[Settings, Settings], tmp_path: Path) -> None:
    source, _ = simple
    expected = answers(source)
    elsewhere = (tmp_path / "elsewhere").as_uri()
    target = move.target_settings(source, blobs=elsewhere, vector_index="flat")
    assert move.move(source, target, quiet).blobs > 10
    assert {row["vector_index"] for row in rows(source, schema.generations)} == {"flat"}
    for key in {row["blob"] for row in rows(source, schema.files)}:
        assert read_blob(BlobFolder(tmp_path / "elsewhere"), key) is not None
    found = answers(target)
    assert {q: [i for i, _ in hits] for q, hits in found.items()} == {q: [i for i, _ in h] for q, h in expected.items()}
    with open_backend(source, jobs=False) as backend, pytest.raises(ChangeRequest) as refused:
        intake.upload(backend, "late", "assistants", [b"late"])
    assert refused.value.code == "blobs_moved"
    with open_backend(target, jobs=False) as backend:
        intake.upload(backend, "now", "assistants", [b"now"])
    with pytest.raises(ChangeRequest) as nothing:
        move.move(target, target, quiet)
    assert nothing.value.code == "nothing_to_move"


# ---- who may write ---------------------------------------------------------------------------------------------------


def test_writers_are_told_to_try_later_and_then_where_to_go(ends: tuple[Settings, Settings]) -> None:
    source, target = ends
    with open_backend(source, jobs=False) as backend:
        store = backend.find_store("houses")
        with steps(source, target) as run:
            run.begin()
            for shared in (False, True):
                with pytest.raises(TryLater) as later:
                    with backend.database.write(shared=shared):
                        pytest.fail("a writer slipped through")
                assert later.value.code == "moving"
            with pytest.raises(TryLater):
                add_text(backend, store, "late.md", "late")
            assert retrieve(backend, [store], "kettle", SearchOptions()).candidates
            with pytest.raises(TryLater) as half:
                database(target, mover=False)
            assert half.value.code == "half_moved"
            run.copy_tables()
            run.copy_blobs()
            run.verify()
            run.finish()
        with pytest.raises(ChangeRequest) as moved:
            add_text(backend, store, "late.md", "late")
        assert moved.value.code == "moved"
        assert "correct/horse" not in moved.value.message
        assert retrieve(backend, [store], "kettle", SearchOptions()).candidates
    with open_backend(target, jobs=False) as backend:
        add_text(backend, backend.find_store("houses"), "late.md", "late")


def test_a_writer_meanwhile_loses_nothing(ends: tuple[Settings, Settings]) -> None:
    source, target = ends
    acknowledged: list[str] = []
    refused: list[RagError] = []
    stop = Event()

    def write() -> None:
        with open_backend(source, jobs=False) as backend:
            store = backend.find_store("houses")
            number = 0
            while not stop.is_set():
                try:
                    acknowledged.append(add_text(backend, store, f"w{number}.md", text_of(number)).source)
                except RagError as error:
                    refused.append(error)
                    time.sleep(0.005)
                number += 1

    writer = Thread(target=write)
    writer.start()
    while len(acknowledged) < 5:
        time.sleep(0.01)
    move.move(source, target, quiet)
    at_the_end = len(refused)
    stop.set()
    writer.join()
    assert at_the_end > 0
    assert {error.code for error in refused} <= {"moving", "moved", "catalog_busy"}
    sources = {row["source"] for row in rows(target, schema.documents)}
    assert set(acknowledged) <= sources
    assert sources == {row["source"] for row in rows(source, schema.documents)}


# ---- interrupted, given up, refused ----------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from ingest import move
from rag.catalog import copying
from tests.ingest.test_move import quiet, settings_from
copying.PAGE, move.BLOBS_A_PAGE = 2, 2
def tell(stage, done, total):
    print(stage, done, flush=True)
    sys.stdin.readline()
move.move(settings_from(sys.argv[1:3]), settings_from(sys.argv[3:5]), tell)
print("end", 0, flush=True)
"""


def settings_from(arguments: list[str]) -> Settings:
    folder, catalog = arguments
    return toy_settings(Path(folder), **({"catalog": catalog} if catalog else {}))


def as_arguments(settings: Settings) -> list[str]:
    return [str(settings.data), secret(settings.catalog) or ""]


def test_a_move_that_is_killed_goes_on(ends: tuple[Settings, Settings]) -> None:
    kill_and_resume(*ends, "chunks")


@pytest.mark.parametrize("stage", ["blobs", "verifying"])
def test_it_may_be_killed_anywhere(simple: tuple[Settings, Settings], stage: str) -> None:
    kill_and_resume(*simple, stage)


def kill_and_resume(source: Settings, target: Settings, stage: str) -> None:
    before = everything(source)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *as_arguments(source), *as_arguments(target)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(stage):
                break
            child.stdin.write("\n")
            child.stdin.flush()
        child.send_signal(signal.SIGKILL)
    told: list[str] = []
    move.move(source, target, lambda stage, done, total: told.append(stage))
    assert everything(target) == before
    with closing(database(source, mover=False)) as opened, pytest.raises(ChangeRequest), opened.write():
        pytest.fail("the source has moved")
    assert told


def test_a_crash_between_closing_and_opening_is_made_good(
    simple: tuple[Settings, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = simple
    before = everything(source)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(move.Move, "_settle", crash)
        with pytest.raises(KeyboardInterrupt):
            move.move(source, target, quiet)
    for settings in (source, target):
        with closing(database(settings)) as opened, pytest.raises(RagError), opened.write():
            pytest.fail("both ends are closed")
    with pytest.raises(ChangeRequest):
        move.cancel(source, target)
    move.move(source, target, quiet)
    move.move(source, target, quiet)
    assert everything(target) == before
    with open_backend(target, jobs=False) as backend:
        intake.upload(backend, "new", "assistants", [b"new"])


def test_giving_up_reopens_the_source_and_empties_the_target(ends: tuple[Settings, Settings]) -> None:
    source, target = ends
    before = everything(source)
    with steps(source, target) as run:
        run.begin()
        run.copy_tables()
        move.cancel(source, target)
        with pytest.raises(ChangeRequest) as over:
            run.copy_blobs()
        assert over.value.code == "move_over"
        with pytest.raises(ChangeRequest):
            run.finish()
    assert everything(source) == before
    assert not any(everything(target).values())
    with open_backend(source) as backend:
        add_text(backend, backend.find_store("houses"), "after.md", text_of(5))
        wait_until_idle(backend)
    move.move(source, target, quiet)
    assert "after.md" in {row["source"] for row in rows(target, schema.documents)}
    with pytest.raises(ChangeRequest) as none:
        move.cancel(target, target)
    assert none.value.code == "no_move"


def test_a_target_that_is_not_ours_is_refused(simple: tuple[Settings, Settings], tmp_path: Path) -> None:
    source, target = simple
    with open_backend(target, jobs=False) as backend:
        intake.create_store(backend, "theirs")
    with pytest.raises(ChangeRequest) as refused:
        move.move(source, target, quiet)
    assert refused.value.code == "target_not_empty"
    with open_backend(source, jobs=False) as backend:
        intake.upload(backend, "still", "assistants", [b"open"])
    third, fourth = toy_settings(tmp_path / "third"), toy_settings(tmp_path / "fourth")
    with steps(source, third) as run:
        run.begin()
        run.copy_tables()
    with pytest.raises(ChangeRequest) as other:
        move.move(source, fourth, quiet)
    assert other.value.code == "other_move"
    with pytest.raises(ChangeRequest) as half:
        move.move(target, third, quiet)
    assert half.value.code == "half_moved"
    with pytest.raises(NotThere):
        move.move(toy_settings(tmp_path / "nowhere"), fourth, quiet)


LIES = {
    "versions": "UPDATE versions SET title = title || '.' WHERE id = (SELECT max(id) FROM versions)",
    "vectors": "UPDATE vectors SET vector = {zeros} WHERE embedding_key IN (SELECT embedding_key FROM vectors LIMIT 1)",
    "documents": "UPDATE documents SET attributes = '{{\"number\": 1.0}}' WHERE id = (SELECT min(id) FROM documents)",
    "chunks": "DELETE FROM chunks WHERE id = (SELECT max(id) FROM chunks)",
}


def test_a_target_that_changes_a_vector_is_caught(ends: tuple[Settings, Settings]) -> None:
    tamper(*ends, "vectors")


@pytest.mark.parametrize("table", [table for table in LIES if table != "vectors"])
def test_a_target_that_changes_anything_else_is_caught(simple: tuple[Settings, Settings], table: str) -> None:
    tamper(*simple, table)


def tamper(source: Settings, target: Settings, table: str) -> None:
    with steps(source, target) as run:
        run.begin()
        run.copy_tables()
        run.copy_blobs()
        with run.target.write(mover=True) as connection:
            zeros = "zeroblob(1536)" if run.target.one_machine else "decode(repeat('00', 1536), 'hex')"
            assert connection.exec_driver_sql(LIES[table].format(zeros=zeros)).rowcount == 1
        with pytest.raises(RagError, match=table) as differs:
            run.verify()
        assert differs.value.code == "move_differs"
    move.cancel(source, target)
    move.move(source, target, quiet)


def test_a_blob_that_is_damaged_or_gone_is_told(simple: tuple[Settings, Settings]) -> None:
    source, target = simple
    key = rows(source, schema.files)[0]["blob"]
    path = source.data / "blobs" / key[:2] / key
    whole = path.read_bytes()
    path.write_bytes(b"other")
    with pytest.raises(NotThere, match=key) as damaged:
        move.move(source, target, quiet)
    assert damaged.value.code == "blob_damaged"
    path.unlink()
    with pytest.raises(NotThere, match=key):
        move.move(source, target, quiet)
    path.write_bytes(whole)
    half = target.data / "blobs" / key[:2] / key
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(whole[:3])
    move.move(source, target, quiet)
    assert half.read_bytes() == whole


def test_a_full_disk_is_told_and_the_move_goes_on_after_it(simple: tuple[Settings, Settings]) -> None:
    source, target = simple
    before = everything(source)
    with steps(source, target) as run:
        run.begin()
        run.target.engine.dispose()
        with run.target.read() as connection:
            size = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

        @event.listens_for(run.target.engine, "checkout")
        def _small(connection: Any, *_: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {size + 4}")

        with pytest.raises(TryLater) as full:
            run.copy_tables()
        assert full.value.code == "storage_full"
    move.move(source, target, quiet)
    assert everything(target) == before


def test_a_server_that_breaks_off_is_asked_again(
    simple: tuple[Settings, Settings], postgres: Postgres, tmp_path: Path
) -> None:
    source, _ = simple
    before = everything(source)
    with postgres.database() as url:
        target = toy_settings(tmp_path / "there", catalog=url)
        broken: list[str] = []

        def break_off(stage: str, done: int, total: int) -> None:
            if stage in ("documents", "chunks") and stage not in broken:
                broken.append(stage)
                postgres.stop(signal.SIGQUIT)
                Thread(target=postgres.start).start()

        move.move(source, target, break_off)
        assert broken == ["documents", "chunks"]
        assert everything(target) == before


def test_the_mark_says_no_secrets(simple: tuple[Settings, Settings], postgres: Postgres, tmp_path: Path) -> None:
    source, _ = simple
    with postgres.database() as url:
        target = move.target_settings(source, catalog=url)
        with steps(source, target) as run:
            run.begin()
            with run.source.read() as connection:
                mark = moves.read_mark(connection)
        assert "horse" not in repr(mark)
        assert "horse" not in "".join(move.settings_lines(target))
