from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from indexes import open_keyword_index, open_vector_index
from indexes.errors import ChangeRequest, Unsupported
from indexes.registry import resolve

DISTRIBUTION = """Metadata-Version: 2.1
Name: third-party
Version: 1
"""


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"'fais'.*Known: faiss, flat"):
        open_vector_index("fais", 8)
    with pytest.raises(Unsupported, match="Known: tantivy"):
        open_keyword_index("lucene", tmp_path)
    with pytest.raises(Unsupported, match="Known: none"):
        resolve("thing", {}, "rag.no_such_group", "x")


def test_a_missing_package_is_answered_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    for module in [name for name in sys.modules if name.startswith(("indexes.faiss", "indexes.shared_partition"))]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(Unsupported, match="pip install faiss-cpu") as caught:
        open_vector_index("faiss", 8)
    assert caught.value.code == "missing_package"
    with pytest.raises(Unsupported, match="pip install no_such_package"):
        resolve("thing", {"x": "no_such_package.inside:Thing"}, "rag.no_such_group", "x")


def test_a_mistake_in_our_own_table_is_not_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError):
        resolve("thing", {"x": "indexes.no_such_file:Thing"}, "rag.no_such_group", "x")


def test_another_package_adds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "third_party-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(DISTRIBUTION)
    (information / "entry_points.txt").write_text(
        "[rag.vector_indexes]\nmine = third_party_index:Mine\nfaiss = third_party_index:Mine\n"
    )
    (tmp_path / "third_party_index.py").write_text(
        "class Mine:\n    def __init__(self, n, folder, shared):\n        self.dimension = n\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert open_vector_index("mine", 9).dimension == 9
    assert type(open_vector_index("faiss", 9)).__name__ == "FaissIndex"
    with pytest.raises(Unsupported, match="Known: faiss, flat, mine"):
        open_vector_index("other", 9)


@pytest.mark.parametrize("name", ["faiss", "flat"])
def test_a_width_below_one_is_refused(name: str) -> None:
    with pytest.raises(ChangeRequest):
        open_vector_index(name, 0)


def test_importing_the_room_loads_no_engine() -> None:
    engines = ("faiss", "tantivy", "qdrant_client", "Stemmer")
    code = f"import sys, indexes; sys.exit(sum(name in sys.modules for name in {engines}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
