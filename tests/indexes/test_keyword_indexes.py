"""Every keyword index against the contract, and what the contract leaves to an engine: its folder, its locks."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexes import KEYWORD_INDEXES, open_keyword_index
from indexes.errors import ChangeRequest, TryLater
from indexes.keyword import KeywordEntry, KeywordIndex
from indexes.tantivy import SETTINGS_FILE, TantivyIndex
from tests.contracts.keyword_index import CHECKS

Check = Callable[[Callable[[Path], KeywordIndex], Path], None]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", KEYWORD_INDEXES)
def test_contract(name: str, check: Check, tmp_path: Path) -> None:
    check(lambda folder: open_keyword_index(name, folder), tmp_path / "index")


@pytest.mark.parametrize("name", KEYWORD_INDEXES)
def test_searches_beside_changes_see_whole_commits(name: str, tmp_path: Path) -> None:
    index = open_keyword_index(name, tmp_path)
    index.add([KeywordEntry(id_, f"river lasting{id_}") for id_ in range(1, 101)])
    index.commit()
    stop, faults, searches = threading.Event(), [], [0]

    def search() -> None:
        try:
            while not stop.is_set():
                found = index.search("river", 1000).ids
                assert len(found) in (100, 150)
                assert found[found <= 100].tolist() == list(range(1, 101))
                assert index.search("lasting7", 5).ids.tolist() == [7]
                searches[0] += 1
        except Exception as error:  # noqa: BLE001  (told to the main thread)
            faults.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    end, first = time.monotonic() + 1.5, 1001
    while not faults and (time.monotonic() < end or searches[0] <= 10) and time.monotonic() < end + 20:
        batch = range(first, first + 50)
        index.add([KeywordEntry(id_, "river passing") for id_ in batch])
        index.commit()
        index.remove(np.array(batch))
        index.commit()
        first += 50
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert searches[0] > 10
    assert first > 1001
    index.close()


def test_a_folder_made_under_another_analysis_is_refused(tmp_path: Path) -> None:
    TantivyIndex(tmp_path).close()
    TantivyIndex(tmp_path).close()
    with pytest.raises(ChangeRequest, match="Delete the folder") as caught:
        TantivyIndex(tmp_path, language="german")
    assert caught.value.code == "index_unreadable"
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings | {"words": "0"}))
    with pytest.raises(ChangeRequest, match="Delete the folder"):
        TantivyIndex(tmp_path)


@pytest.mark.parametrize("damage", ["", "{}", "no json", None])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str | None) -> None:
    index = TantivyIndex(tmp_path)
    index.add([KeywordEntry(1, "river")])
    index.commit()
    index.close()
    if damage is None:
        for segment in tmp_path.glob("*.term"):
            segment.unlink()
    else:
        (tmp_path / "meta.json").write_text(damage)
    with pytest.raises(ChangeRequest, match="Delete the folder"):
        TantivyIndex(tmp_path)


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    TantivyIndex(tmp_path).close()
    (tmp_path / ".tmpAbC123").write_bytes(b"half a file")
    TantivyIndex(tmp_path).close()
    assert not list(tmp_path.glob(".tmp*"))


def test_a_second_writer_is_told_to_wait(tmp_path: Path) -> None:
    first, second = TantivyIndex(tmp_path), TantivyIndex(tmp_path)
    first.add([KeywordEntry(1, "river")])
    with pytest.raises(TryLater) as caught:
        second.add([KeywordEntry(2, "river")])
    assert caught.value.code == "index_busy"
    first.commit()
    first.close()
    second.add([KeywordEntry(2, "river")])
    second.commit()
    assert len(second) == 2
    second.close()


@pytest.mark.parametrize("name", KEYWORD_INDEXES)
def test_a_search_beside_closing_is_unharmed(name: str, tmp_path: Path) -> None:
    index = open_keyword_index(name, tmp_path)
    index.add([KeywordEntry(id_, f"river stone{id_}") for id_ in range(1, 101)])
    index.commit()
    index.close()
    assert len(index.search("river", 1000).ids) == 100
    assert index.scores("stone7", np.array([7]))[0] > 0
    assert index.contains(["river"], np.array([7, 700])).tolist() == [[True, False]]
    assert index.document_frequency(["river"]) == [100]
    with pytest.raises(TryLater):
        index.add([KeywordEntry(1, "late")])


def test_compacting_goes_step_by_step_and_searches_see_every_text_after_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.tantivy.WRITTEN_ANEW", 30)
    index = open_keyword_index("tantivy", tmp_path / "index")
    for first in (1, 101, 201):
        index.add([KeywordEntry(id_, f"river stone{id_ % 5}") for id_ in range(first, first + 100)])
        index.commit()
    index.remove(np.arange(90, 120))
    index.commit()
    steps = 0
    while index.compact():
        steps += 1
        assert len(index) == len(index.search("river", 1000).ids) == 270
    assert steps >= 6
    assert not any(segment["deletes"] for segment in json.loads((tmp_path / "index/meta.json").read_text())["segments"])
    index.close()
    assert not index.compact()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted where /proc names them")
def test_a_small_index_keeps_no_writer_between_commits(tmp_path: Path) -> None:
    """Thousands of small stores may be open at a time."""
    indexes = [open_keyword_index("tantivy", tmp_path / str(number)) for number in range(5)]
    before = _threads()
    for index in indexes:
        for id_ in (1, 2):
            index.add([KeywordEntry(id_, "river")])
            index.commit()
            deadline = time.monotonic() + 20  # some end a moment later
            while _threads() > before:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert index.search("river", 5).ids.tolist() == [1, 2]


def _threads() -> int:
    """Threads that write or merge; one that watches the folder, which the binding starts, is not among them."""
    names = []
    for file in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            names.append(file.read_text())
    return sum("thread-tantivy" not in name and "python" not in name for name in names)
