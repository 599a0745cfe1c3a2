"""Where a model's files are found: in a folder, a package, a cache, or nowhere; always the ones that were meant."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from indexes.errors import ChangeRequest, NotThere, TryLater
from rag.embedders import model_files
from rag.embedders.model_files import resolve_model
from tests.small_bert import build_bert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_bert(tmp_path_factory.mktemp("tiny"))[0]


def test_names_resolve_without_loading_torch():
    code = (
        "import sys; from rag.embedders.model_files import resolve_model;"
        "names = 'all-MiniLM-L6-v2', 'sentence-transformers/all-MiniLM-L6-v2';"
        "print(*(resolve_model(name).source for name in names), 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["package", "package", "False"]


def corrupted_package(folder: Path) -> Path:
    model = folder / model_files.PACKAGE / "model"
    shutil.copytree(resolve_model("all-MiniLM-L6-v2").path, model)
    (model.parent / "__init__.py").touch()
    weights = model / "model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as stream:
        stream.seek(50_000_000)
        byte = stream.read(1)
        stream.seek(50_000_000)
        stream.write(bytes([byte[0] ^ 1]))
    return folder


def test_packaged_weights_with_one_bit_turned_are_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(corrupted_package(tmp_path)))
    monkeypatch.delitem(sys.modules, model_files.PACKAGE, raising=False)
    with pytest.raises(ChangeRequest, match="not the published ones") as caught:
        resolve_model("all-MiniLM-L6-v2")
    assert caught.value.code == "weights_corrupted"


def test_the_local_cache_is_found_offline(tiny, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny, repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    found = resolve_model("someone/tiny")
    assert (found.name, found.source) == ("someone/tiny", "cache")
    assert found.weights_sha256 == resolve_model(str(tiny)).weights_sha256


def test_a_cache_without_the_weights_is_not_there(tiny, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--half" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    shutil.copy(tiny / "config.json", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc123")
    with pytest.raises(NotThere):
        resolve_model("someone/half")


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "nobody/nothing", "a b c", "x/y/z", "nul\x00"])
def test_what_resolves_nowhere_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotThere):
        resolve_model(name)


def test_an_unreachable_hub_says_what_to_do(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TryLater, match="hf download nobody/nothing"):
        resolve_model("nobody/nothing", download=True)


def test_weights_that_can_carry_code_are_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ChangeRequest) as caught:
        resolve_model(str(folder))
    assert caught.value.code == "no_safetensors"


@pytest.mark.parametrize("change", ["content", "name", "module", "none"])
def test_the_configurations_hash_covers_whatever_says_how_to_compute(tiny, tmp_path, change):
    folder = shutil.copytree(tiny, tmp_path / "copy")
    (folder / "README.md").write_text("anything")
    if change == "content":
        (folder / "config.json").write_text((folder / "config.json").read_text().replace("gelu", "relu"))
    elif change == "name":
        (folder / "modules.json").rename(folder / "modules2.json")
    elif change == "module":
        (folder / "1_Pooling" / "config.json").write_text("{}")
    assert (model_files.config_sha256(folder) == model_files.config_sha256(tiny)) == (change == "none")
