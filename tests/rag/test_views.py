"""Views follow the change log: every query sees what was acknowledged before it, in every process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from indexes.errors import ChangeRequest, NotThere, TryLater
from indexes.faiss_forms import Lists
from indexes.filters import parse_filter
from ingest import intake
from rag.backend import Backend
from rag.catalog import changes, documents, purge, schema
from rag.catalog.records import Store
from rag.embedders.toy import ToyEmbedder
from rag.fusion import Scored, fuse_scaled
from rag.retrieve import SearchOptions, retrieve
from rag.settings import Settings
from rag.views import View
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle


def found(backend: Backend, store: Store, question: str, **options: object) -> list[str]:
    hits = retrieve(backend, [store], question, SearchOptions(**options)).candidates  # type: ignore[arg-type]
    return [hit.filename for hit in hits]


def visible_ids(backend: Backend) -> list[int]:
    versions, chunks = schema.versions.c, schema.chunks.c
    query = sa.select(chunks.id).join(schema.versions, versions.id == chunks.version_id)
    query = query.where(versions.published_seq.is_not(None), versions.retired_seq.is_(None)).order_by(chunks.id)
    with backend.database.read() as connection:
        return list(connection.execute(query).scalars())


def check_view_is_the_catalog(backend: Backend, store: Store) -> None:
    view = backend.view(backend.live_generation(store))
    truth = visible_ids(backend)
    assert view.vectors.ids().tolist() == truth
    assert len(view.words) == len(truth)
    with backend.database.read() as connection:
        rows = connection.execute(sa.select(schema.chunks.c.id, schema.chunks.c.embedding_key)).all()
        stored = dict(connection.execute(sa.select(schema.vectors.c.embedding_key, schema.vectors.c.vector)).all())
    for row in rows[:20]:
        vector = np.frombuffer(stored[row.embedding_key], dtype="<f4")
        assert view.vectors.scores(vector, np.array([row.id]))[0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("large", [150_000, 1], ids=["scanned", "in lists"])
def test_adds_replacements_deletes_and_attributes_reach_the_next_query(
    large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.faiss_building.LARGE", large)
    monkeypatch.setattr("indexes.faiss_building.SETTLE_SECONDS", 0.0)
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        assert found(backend, store, "zebra") == []
        zebra = add_text(backend, store, "zebra.txt", "A zebra has stripes.", {"kind": "animal"})
        add_text(backend, store, "violin.txt", "A violin has strings.", {"kind": "tool"})
        wait_until_idle(backend)
        assert found(backend, store, "zebra", limit=1) == ["zebra.txt"]
        animals = parse_filter({"type": "eq", "key": "kind", "value": "animal"})
        assert found(backend, store, "violin strings", condition=animals) == ["zebra.txt"]
        with backend.database.write() as connection:
            documents.set_attributes(connection, zebra, {"kind": "tool"})
        assert found(backend, store, "violin", condition=animals) == []
        with pytest.raises(ChangeRequest, match="kind"):
            found(backend, store, "violin", condition=parse_filter({"type": "eq", "key": "sort", "value": "tool"}))
        add_text(backend, store, "zebra.txt", "An okapi has legs.")
        wait_until_idle(backend)
        assert found(backend, store, "zebra stripes", mode="keyword") == []
        assert found(backend, store, "okapi", limit=1) == ["zebra.txt"]
        check_view_is_the_catalog(backend, store)
        intake.delete_documents(backend, [all_documents(backend, store)["zebra.txt"]])
        assert "zebra.txt" not in found(backend, store, "okapi")
        check_view_is_the_catalog(backend, store)


def test_scores_of_a_store_at_rest_do_not_remember_what_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.views.FOLLOW_EVERY", 3600.0)

    with open_backend(toy_settings(tmp_path)) as backend:
        stores = [intake.create_store(backend, name) for name in ("changed", "new")]
        for store in stores:
            for animal in ("zebra", "okapi", "ibex"):
                add_text(backend, store, f"{animal}.txt", f"A {animal} has stripes and long legs.")
        add_text(backend, stores[0], "violin.txt", "A violin has strings, and stripes where light falls on its wood.")
        wait_until_idle(backend)
        changed, new = (backend.view(backend.live_generation(store)) for store in stores)

        def scores(view: View) -> list[float]:
            view.follow()
            return sorted(view.search(None, "zebra stripes violin", None, 10, None).keyword.tolist())

        assert len(scores(changed)) == 4  # now the four share a segment
        intake.delete_documents(backend, [all_documents(backend, stores[0])["violin.txt"]])
        assert len(scores(changed)) == 3
        changed.compact_if_due()
        assert scores(changed) != scores(new)  # it is not at rest yet
        for _ in range(2):
            changed.compact_if_due(rest=-1.0)
        assert scores(changed) == scores(new)


def test_a_second_process_sees_a_write_at_once(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    writer = """
import sys
import time
from collections.abc import Callable
from pathlib import Path
from ingest import intake
from tests.backends import add_text, open_backend, toy_settings
with open_backend(toy_settings(Path(sys.argv[1])), jobs=False) as backend:
    add_text(backend, backend.find_store("s"), "late.txt", "The quokka lives on an island.")
"""
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "early.txt", "The ibex lives on a mountain.")
        wait_until_idle(backend)
        assert found(backend, store, "quokka island", limit=1) == ["early.txt"]
        subprocess.run([sys.executable, "-c", writer, str(tmp_path)], check=True, timeout=60)
        wait_until_idle(backend)
        assert found(backend, store, "quokka island", limit=1) == ["late.txt"]


def test_a_view_behind_the_pruned_log_rebuilds(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "one")
        wait_until_idle(backend)
        view = backend.view(backend.live_generation(store))
        for text in ("two", "three", "four"):
            add_text(backend, store, "a.txt", text)
            wait_until_idle(backend)
        view.follow()
        view.position = view.seen = 0
        with backend.database.write() as connection:
            purge.prune_log(connection, store.id, seq=4, kept=1)
        view.follow()
        check_view_is_the_catalog(backend, store)


def test_a_search_beside_a_rebuild_finds_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about terns.")
        wait_until_idle(backend)
        view = backend.view(backend.live_generation(store))
        vectors, words = view.vectors, view.words
        sizes: list[tuple[int, int]] = []
        real = changes.read_rows

        def reading(*given: object) -> object:
            sizes.append((len(view.vectors), len(view.words)))
            return real(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(changes, "read_rows", reading)
        with view._changing:
            view.position = -1
            view.follow()
        assert sizes == [(1, 1)]
        assert view.vectors is not vectors
        assert len(vectors) == len(words.search("terns", 5).ids) == 1
        check_view_is_the_catalog(backend, store)


def snapshot_ids(folder: Path) -> list[list[int]]:
    return [np.load(file).tolist() for file in sorted((folder / "views" / "snapshots").glob("*/words-*/ids.npy"))]


def test_snapshots_of_stores_that_are_gone_are_swept(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    with open_backend(settings) as backend:
        for name in ("stays", "goes"):
            store = intake.create_store(backend, name)
            add_text(backend, store, "a.txt", "A text about skuas.")
            wait_until_idle(backend)
            backend.view(backend.live_generation(store)).save_if_due(share=0.0, least=0)
        gone = backend.find_store("goes")
    assert len(snapshot_ids(tmp_path)) == 2
    with open_backend(settings, jobs=False) as backend:
        assert len(snapshot_ids(tmp_path)) == 2
        intake.delete_store(backend, gone)  # no view of it is open
    with open_backend(settings, jobs=False) as backend:
        assert len(snapshot_ids(tmp_path)) == 1
        assert found(backend, backend.find_store("stays"), "skuas") == ["a.txt"]


@pytest.mark.parametrize("ending", ["a minute", "close", "reopen"])
def test_a_snapshot_that_holds_a_deleted_document_is_written_anew(tmp_path: Path, ending: str) -> None:
    settings = toy_settings(tmp_path)
    with open_backend(settings) as backend:
        store = intake.create_store(backend, "s")
        for name in ("stays", "goes"):
            add_text(backend, store, name, f"A text that {name}.")
        wait_until_idle(backend)
        view = backend.view(backend.live_generation(store))
        view.save_if_due(share=0.0, least=0)
        [before] = snapshot_ids(tmp_path)
        gone = all_documents(backend, store)["goes"]
        if ending != "reopen":
            intake.delete_documents(backend, [gone])
            view.follow()
            after = visible_ids(backend)
            view.save_if_due()
            assert snapshot_ids(tmp_path) == [before]
        if ending == "a minute":
            view.save_if_due(stale=0.0)
            assert snapshot_ids(tmp_path) == [after]
    if ending == "reopen":
        with open_backend(settings, jobs=False) as backend:
            intake.delete_documents(backend, [gone])
            after = visible_ids(backend)
        assert snapshot_ids(tmp_path) == [before]
        with open_backend(settings, jobs=False) as backend:
            assert found(backend, store, "stays") == ["stays"]
    assert len(before) == 2
    assert snapshot_ids(tmp_path) == [after]


def test_random_changes_leave_the_view_equal_to_the_catalog(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        for step in range(40):
            name = f"{random.integers(8)}.txt"
            there = all_documents(backend, store)
            if name in there and random.random() < 0.3:
                intake.delete_documents(backend, [there[name]])
            else:
                words = " ".join(f"word{random.integers(50)}" for _ in range(int(random.integers(1, 700))))
                add_text(backend, store, name, f"{words} step{step}.")
            if random.random() < 0.3:
                found(backend, store, f"word{random.integers(50)}")
        wait_until_idle(backend)
        check_view_is_the_catalog(backend, store)
        with backend.database.read() as connection:
            used = set(connection.execute(sa.select(schema.chunks.c.embedding_key)).scalars())
            kept = set(connection.execute(sa.select(schema.vectors.c.embedding_key)).scalars())
        assert kept == used


def test_another_space_of_the_same_width_is_refused_by_name(tmp_path: Path) -> None:
    aliases = {"mine": {"provider": "toy", "model": "toy-384"}}
    other = {"mine": {"provider": "toy", "model": "toy-384-b"}}
    settings = toy_settings(tmp_path, embedder="mine")
    with open_backend(settings.model_copy(update={"embedders": aliases})) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "one")
        wait_until_idle(backend)
    with open_backend(settings.model_copy(update={"embedders": other})) as backend:
        store = backend.find_store("s")
        with pytest.raises(ChangeRequest, match=r"toy-384 .*toy-384-b"):
            found(backend, store, "one")
        assert found(backend, store, "one", mode="keyword") == ["a.txt"]
        add_text(backend, store, "b.txt", "two")
        wait_until_idle(backend)
        refused = all_documents(backend, store)["b.txt"]
        assert refused.state == "failed"
        assert "toy-384-b" in str(refused.error_message)


def test_a_deleted_store_is_not_there(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "one")
        wait_until_idle(backend)
        assert found(backend, store, "one") == ["a.txt"]
        intake.delete_store(backend, store)
        with pytest.raises(NotThere):
            found(backend, store, "one")
        assert list((tmp_path / "blobs").glob("??/*")) == []


def test_folders_of_dead_processes_are_swept(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from rag.backend import Backend
from tests.backends import toy_settings
Backend(toy_settings(Path(sys.argv[1])))
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    assert len(list((tmp_path / "views").iterdir())) == 1
    settings: Settings = toy_settings(tmp_path)
    with open_backend(settings, jobs=False):
        assert len(list((tmp_path / "views").iterdir())) == 1
    assert list((tmp_path / "views").iterdir()) == []


def test_a_change_that_fails_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about puffins.")
        wait_until_idle(backend)
        view = backend.view(backend.live_generation(store))
        assert len(view.words) == 1
        faults = iter(range(1))
        real = view.words.commit

        def failing() -> None:
            if next(faults, None) is not None:
                view.words.close()
                raise TryLater("The disk is full.", code="index_write_failed")
            real()

        monkeypatch.setattr(view.words, "commit", failing)
        intake.delete_documents(backend, [all_documents(backend, store)["a.txt"]])
        assert found_in_time(backend, store, "puffins") == []
        check_view_is_the_catalog(backend, store)


def found_in_time(backend: Backend, store: Store, question: str) -> list[str]:
    while True:
        try:
            return found(backend, store, question)
        except TryLater:
            continue


def test_a_disk_that_takes_no_snapshot_does_not_stop_the_thread(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about auks.")
        wait_until_idle(backend)
        view = backend.view(backend.live_generation(store))
        (tmp_path / "views" / "snapshots").write_text("in the way")
        view.save_if_due(share=0.0, least=0)
        assert found(backend, store, "auks") == ["a.txt"]


def test_a_replacement_in_the_middle_of_a_change_is_found_as_one_version_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about gannets.")
        wait_until_idle(backend)
        view = backend.view(backend.live_generation(store))
        held: list[int] = []
        for name in ("add", "remove"):
            real = getattr(view.vectors, name)

            def noting(*given: object, real: Callable[..., None] = real) -> None:
                real(*given)
                held.append(len(view.vectors))

            monkeypatch.setattr(view.vectors, name, noting)
        add_text(backend, store, "a.txt", "Another text about gannets.")
        wait_until_idle(backend)
        assert found(backend, store, "gannets") == ["a.txt"]
        assert held == [2, 1]


def test_a_leg_without_a_score_gives_none() -> None:
    nan, yes, no = np.nan, True, False
    ids = np.array([1, 2], dtype=np.int64)
    dense, keyword = np.array([0.5, nan], dtype=np.float32), np.array([0.0, 3.0], dtype=np.float32)
    fused = fuse_scaled(Scored(ids, dense, keyword, np.array([yes, no]), np.array([no, yes])), 0.75)
    assert fused.tolist() == [0.75, 0.25]


def test_a_document_replaced_during_a_search_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about skuas.")
        wait_until_idle(backend)
        real = ToyEmbedder.embed_queries

        def replacing(self: ToyEmbedder, texts: object) -> object:
            monkeypatch.undo()
            add_text(backend, store, "a.txt", "Another text about skuas.")
            wait_until_idle(backend)
            return real(self, texts)  # type: ignore[arg-type]

        monkeypatch.setattr(ToyEmbedder, "embed_queries", replacing)
        hits = retrieve(backend, [store], "skuas", SearchOptions()).candidates
        assert [hit.text for hit in hits] == ["Another text about skuas."]


def test_views_over_their_memory_are_let_go_and_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two views: of five stores asked in turn, the two asked last are open; every answer is right."""
    with open_backend(toy_settings(tmp_path, views__memory_mb=2)) as backend:
        monkeypatch.setattr("rag.views.BYTES_A_VIEW", (1 << 20) - 50_000)
        stores = [intake.create_store(backend, f"s{number}") for number in range(5)]
        for number, store in enumerate(stores):
            add_text(backend, store, f"{number}.txt", f"Text {number} about wrens.")
        wait_until_idle(backend)
        for _ in range(2):
            for number, store in enumerate(stores):
                assert found(backend, store, "wrens") == [f"{number}.txt"]
                assert len(backend.views._views) <= 2
        add_text(backend, stores[0], "more.txt", "More text about wrens.")
        wait_until_idle(backend)
        assert sorted(found(backend, stores[0], "wrens")) == ["0.txt", "more.txt"]
        assert len([folder for folder in next((tmp_path / "views").glob("[0-9]*-*")).iterdir() if folder.is_dir()]) <= 2


def test_a_view_says_what_its_vectors_take(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about larks.")
        wait_until_idle(backend)
        view = backend.view(backend.live_generation(store))
        before, dimension = view.memory(), view.vectors.dimension
        view.vectors.add(np.arange(10**6, 10**6 + 1_000), np.tile(np.eye(1, dimension), (1_000, 1)))
        assert view.memory() - before >= 1_000 * dimension


def test_the_lists_of_one_process_are_taken_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.faiss_building.LARGE", 1)
    monkeypatch.setattr("indexes.faiss_building.SETTLE_SECONDS", 0.0)
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about larks.")
        wait_until_idle(backend)
        assert found(backend, store, "larks") == ["a.txt"]
        assert backend.view(backend.live_generation(store)).vectors.settle(60)  # type: ignore[attr-defined]
    monkeypatch.setattr("indexes.faiss_building.trained_partition", lambda *_: pytest.fail("trained again"))
    with open_backend(toy_settings(tmp_path)) as backend:
        assert found(backend, store, "larks") == ["a.txt"]
        vectors = backend.view(backend.live_generation(store)).vectors
        assert vectors.settle(60)  # type: ignore[attr-defined]
        assert isinstance(vectors._form, Lists)  # type: ignore[attr-defined]


def test_a_search_goes_on_with_a_view_that_is_let_go(tmp_path: Path) -> None:
    with open_backend(toy_settings(tmp_path)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about finches.")
        wait_until_idle(backend)
        generation = backend.live_generation(store)
        view = backend.view(generation)
        vector = backend.embedder(generation).embed_queries(["finches"])[0]
        before = view.search(lambda: vector, "finches", None, 5, None)
        view.release()
        after = view.search(lambda: vector, "finches", None, 5, None)
        assert (after.ids.tolist(), after.dense.tolist()) == (before.ids.tolist(), before.dense.tolist())
        assert found(backend, store, "finches") == ["a.txt"]


def test_a_view_that_stays_behind_makes_the_server_unready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.readiness import Readiness

    with open_backend(toy_settings(tmp_path, views__lag_seconds=0.3)) as backend:
        store = intake.create_store(backend, "s")
        add_text(backend, store, "a.txt", "A text about larks.")
        wait_until_idle(backend)
        assert found(backend, store, "larks") == ["a.txt"]
        readiness = Readiness(backend, warm=False)
        assert readiness.missing() == []
        real = View._catch_up
        monkeypatch.setattr(View, "_catch_up", lambda _: 1 / 0)
        add_text(backend, store, "b.txt", "Another text about larks.")
        deadline = time.monotonic() + 20
        while "behind the catalog" not in " ".join(readiness.missing()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        monkeypatch.setattr(View, "_catch_up", real)
        while readiness.missing():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(found(backend, store, "larks")) == 2
