"""The model computed with torch: the poolings, the folders that are refused, the order in which it serves."""

import json
import shutil
import threading
import time

import numpy as np
import pytest

from indexes.errors import ChangeRequest, Unsupported
from rag.embedders import open_embedder, parse_embedder
from rag.embedders.torch_encoder import FairLock, has_device
from tests.small_bert import build_bert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_bert(tmp_path_factory.mktemp("tiny"), prompts={"query": "query: ", "document": "a longer passage: "})


def open_path(path, **fields):
    table = {"provider": "sentence-transformers", "model": str(path), "build": "torch"}
    return open_embedder(parse_embedder("x", {**table, **fields}))


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


# ---- devices --------------------------------------------------------------------------------------------------------


def test_devices_are_looked_for_by_name():
    assert has_device("cpu")
    assert not has_device("cuda:99")
    with pytest.raises(ChangeRequest, match="cuda:1") as caught:
        has_device("gpu")
    assert caught.value.param == "device"


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
