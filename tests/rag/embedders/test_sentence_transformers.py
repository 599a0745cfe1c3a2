"""The local embedder against the library it wraps, and against models made in the test."""

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from indexes.errors import ChangeRequest, NotThere, TryLater, Unsupported
from rag.embedders import EmbedderRegistry, EmbedderSpec, open_embedder, parse_embedder
from rag.embedders import sentence_transformers as ours
from rag.embedders.sentence_transformers import PACKAGED_SHA256, FairLock, resolve_model
from rag.tokenizers import plain
from tests.contracts.embedder import UGLY
from tests.small_bert import build_bert


@pytest.fixture(scope="module")
def default():
    return EmbedderRegistry({}).open("default")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_bert(tmp_path_factory.mktemp("tiny"), prompts={"query": "query: ", "document": "a longer passage: "})


def open_path(path, **fields):
    return open_embedder(parse_embedder("x", {"provider": "sentence-transformers", "model": str(path), **fields}))


# ---- the same vectors as the library --------------------------------------------------------------------------------


def test_its_space_is_read_from_the_model(default):
    space = default.space
    assert (space.provider, space.model) == ("sentence-transformers", "sentence-transformers/all-MiniLM-L6-v2")
    assert space.revision == PACKAGED_SHA256
    assert (space.dimension, space.pooling, space.normalised, space.token_limit) == (384, "mean", True, 256)
    assert (space.query_prefix, space.document_prefix) == ("", "")
    assert (default.build, default.limit) == ("torch-fp32", 254)


def test_a_local_model_with_prompts_is_embedded_as_the_library_does(tiny):
    path, library = tiny
    embedder = open_path(path)
    texts = [plain(text)[:120] for text in UGLY]
    assert embedder.space.model == "tiny-bert", "the path is no part of the space"
    assert (embedder.space.dimension, embedder.space.pooling, embedder.space.token_limit) == (32, "cls", 64)
    assert (embedder.space.query_prefix, embedder.space.document_prefix) == ("query: ", "a longer passage: ")
    fits = [text for text in texts if embedder.tokenizer.count(text) <= embedder.limit]
    assert len(fits) > 10
    queries = library.encode_query(fits, normalize_embeddings=True)
    documents = library.encode_document(fits, normalize_embeddings=True)
    assert np.abs(embedder.embed_queries(fits) - queries).max() < 1e-5
    assert np.abs(embedder.embed_documents(fits) - documents).max() < 1e-5
    assert np.abs(queries - documents).max() > 1e-2, "the prefixes must matter for this test to mean something"


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "max", "lasttoken"])
def test_other_poolings(tmp_path, pooling, include_prompt):
    path, library = build_bert(tmp_path, pooling=pooling, prompts={"query": "find this: "})
    library.set_pooling_include_prompt(include_prompt)
    library.save_pretrained(str(path), create_model_card=False)
    embedder = open_path(path)
    texts = ["one", "two three four", "a longer text of several words", ""]
    if not include_prompt and pooling == "max":
        texts = texts[:3]  # nothing but the last special token would be left to pool; the library's own limit
    truth = library.encode_query(texts, normalize_embeddings=True)
    assert np.abs(embedder.embed_queries(texts) - truth).max() < 1e-5


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_a_limit_can_be_lowered_but_not_beyond_the_model(tiny):
    assert open_path(tiny[0], token_limit=32).space.token_limit == 32
    with pytest.raises(ChangeRequest, match="64 positions"):
        open_path(tiny[0], token_limit=65)
    with pytest.raises(ChangeRequest, match="prefixes"):
        open_path(tiny[0], token_limit=5)


# ---- what makes a space ---------------------------------------------------------------------------------------------


def test_a_model_that_moved_is_the_same_space(tiny, tmp_path):
    moved = shutil.copytree(tiny[0], tmp_path / "elsewhere" / "tiny-bert")
    assert open_path(moved).space.fingerprint == open_path(tiny[0]).space.fingerprint


@pytest.mark.parametrize(
    ("fields", "words"), [({"dimension": 31}, "32 dimensions, not 31"), ({"pooling": "median"}, "lasttoken")]
)
def test_settings_that_contradict_the_model_are_refused(tiny, fields, words):
    with pytest.raises(ChangeRequest, match=words):
        open_path(tiny[0], **fields)


# ---- finding the model ----------------------------------------------------------------------------------------------


def test_names_resolve_without_loading_torch():
    import subprocess

    code = (
        "import sys; from rag.embedders.sentence_transformers import resolve_model;"
        "names = 'all-MiniLM-L6-v2', 'sentence-transformers/all-MiniLM-L6-v2';"
        "print(*(resolve_model(name).source for name in names), 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["package", "package", "False"]


def corrupted_package(folder: Path) -> Path:
    model = folder / ours.PACKAGE / "model"
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
    monkeypatch.delitem(sys.modules, ours.PACKAGE, raising=False)
    with pytest.raises(ChangeRequest, match="not the published ones") as caught:
        resolve_model("all-MiniLM-L6-v2")
    assert caught.value.code == "weights_corrupted"


def test_the_local_cache_is_found_offline(tiny, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny[0], repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    found = resolve_model("someone/tiny")
    assert (found.name, found.source) == ("someone/tiny", "cache")
    assert found.weights_sha256 == resolve_model(str(tiny[0])).weights_sha256


def test_a_cache_without_the_weights_is_not_there(tiny, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--half" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    shutil.copy(tiny[0] / "config.json", snapshot)
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
        open_embedder(EmbedderSpec("x", "sentence-transformers", "nobody/nothing"))


def test_weights_that_can_carry_code_are_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny[0], tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ChangeRequest) as caught:
        open_path(folder)
    assert caught.value.code == "no_safetensors"


def test_code_in_a_models_folder_is_never_run(tiny, tmp_path):
    folder = shutil.copytree(tiny[0], tmp_path / "hostile")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "9", "path": "", "type": "evil.Evil"})
    (folder / "modules.json").write_text(json.dumps(modules))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Unsupported) as caught:
        open_path(folder)
    assert caught.value.code == "unusable_model"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "no_config", "no_tokenizer"])
def test_a_damaged_folder_is_a_typed_error(tiny, tmp_path, damage):
    folder = shutil.copytree(tiny[0], tmp_path / "damaged")
    if damage == "truncated":
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    else:
        doomed = ["config.json"] if damage == "no_config" else ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
        for name in doomed:
            (folder / name).unlink(missing_ok=True)
    with pytest.raises(Unsupported, match="damaged"):
        open_path(folder)


def test_loading_says_nothing(tiny, capfd):
    open_path(tiny[0])
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


# ---- threads --------------------------------------------------------------------------------------------------------


def test_the_lock_serves_in_order_of_arrival():
    lock, served, waiting = FairLock(), [], []
    release = threading.Event()

    def wait_and_note(number):
        with lock:
            served.append(number)

    def greedy():
        for turn in range(3):
            with lock:
                served.append("greedy")
                if turn == 0:
                    release.wait(10)

    first = threading.Thread(target=greedy)
    first.start()
    while not served:
        time.sleep(0.001)
    for number in range(4):
        thread = threading.Thread(target=wait_and_note, args=(number,))
        thread.start()
        waiting.append(thread)
        while lock._tickets < number + 2:
            time.sleep(0.001)
    release.set()
    for thread in (first, *waiting):
        thread.join(10)
    assert served[:5] == ["greedy", 0, 1, 2, 3], "the greedy one went in again before those who waited"


def test_the_lock_is_released_by_an_error():
    lock = FairLock()
    with pytest.raises(RuntimeError):
        with lock:
            raise RuntimeError
    with lock:
        pass
