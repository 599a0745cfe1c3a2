"""Compiled models in their cache: made once, whole or made again, whoever comes and whatever happened to the files."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag.embedders import Embedder, compiled, open_embedder, parse_embedder
from rag.embedders.model_files import resolve_model
from tests.rag.embedders.conftest import compile_here
from tests.small_bert import build_bert

TEXTS = ["one", "two three", "a longer text of several words"]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bert(tmp_path_factory.mktemp("tiny"), spread=0.2)[0]


def table(model: Path, **fields: object) -> dict[str, object]:
    return {"provider": "sentence-transformers", "model": str(model), "build": "onnx-int8", **fields}


def open_it(model: Path, **fields: object) -> Embedder:
    return open_embedder(parse_embedder("x", table(model, **fields)))


def order(model: Path, **fields: object) -> compiled.Order:
    return compiled.order_of(parse_embedder("x", table(model, **fields)), resolve_model(str(model)))


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch, encoders: Path) -> list[str]:
    """The keys of what was compiled, in order."""
    keys: list[str] = []

    def counted(asked: compiled.Order, path: Path, aside: Path) -> bool:
        keys.append(asked.key)
        return compile_here(asked, path, aside)

    monkeypatch.setattr(compiled, "_compile", counted)
    return keys


def test_it_is_compiled_once(tiny: Path, compiles: list[str], tmp_path: Path) -> None:
    first = open_it(tiny)
    moved = shutil.copytree(tiny, tmp_path / "elsewhere" / "tiny-bert")
    again = open_it(moved)
    assert len(compiles) == 1
    assert first.build == again.build == "onnx-int8"
    assert (first.embed_documents(TEXTS) == again.embed_documents(TEXTS)).all()


def test_whatever_decides_what_comes_of_it_makes_another(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {order(tiny, **fields).key for fields in ({}, {"build": "auto"}, {"pooling": "mean"}, {"device": "cpu"})}
    assert len(keys) == 4
    assert order(tiny, query_prefix="q: ", token_limit=20, threads=3).key in keys, "these are not compiled in"
    for change in ("_version", "_machine", "_sources_sha256"):
        with monkeypatch.context() as patch:
            patch.setattr(compiled, change, lambda *_: "other")
            keys.add(order(tiny).key)
    assert len(keys) == 7


DAMAGES = {
    "one bit of the model": lambda folder: _flip(folder / "model.onnx"),
    "half of the model": lambda folder: _halve(folder / "model.onnx"),
    "no model": lambda folder: (folder / "model.onnx").unlink(),
    "one bit of the tokenizer": lambda folder: _flip(folder / "tokenizer.json"),
    "half of the manifest": lambda folder: _halve(folder / "manifest.json"),
    "another checksum in the manifest": lambda folder: _rewrite(folder, files={"model.onnx": "0" * 64}),
    "another pooling in the manifest": lambda folder: _rewrite(folder, facts={"pooling": "mean"}),
    "a manifest of something else": lambda folder: (folder / "manifest.json").write_text("[1, 2]"),
}


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _rewrite(folder: Path, **changes: dict[str, str]) -> None:
    written = json.loads((folder / "manifest.json").read_text())
    for field, values in changes.items():
        written["content"][field].update(values)
    (folder / "manifest.json").write_text(json.dumps(written))


@pytest.fixture(scope="module")
def sound(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled folder as it should be."""
    folder = tmp_path_factory.mktemp("sound") / order(tiny).key
    folder.mkdir()
    compile_here(order(tiny), tiny, folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_said_and_made_again_with_the_same_answers(
    damage: str,
    tiny: Path,
    sound: Path,
    encoders: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[Path] = []

    def from_the_sound_one(_: compiled.Order, path: Path, aside: Path) -> bool:
        made.append(path)
        shutil.copytree(sound, aside, dirs_exist_ok=True)
        return True

    monkeypatch.setattr(compiled, "_compile", from_the_sound_one)
    folder = Path(shutil.copytree(sound, encoders / sound.name))
    truth = open_it(tiny).embed_documents(TEXTS)
    assert not made
    DAMAGES[damage](folder)
    with caplog.at_level(logging.WARNING):
        mended = open_it(tiny)
    assert "is damaged" in caplog.text
    assert made == [tiny]
    assert (mended.embed_documents(TEXTS) == truth).all()
    assert {file.name for file in folder.iterdir()} == {"manifest.json", "model.onnx", "tokenizer.json"}
    assert [left.name for left in encoders.iterdir() if left.is_dir()] == [folder.name]


def test_where_the_cache_cannot_be_written_torch_computes(
    tiny: Path, encoders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoders.parent.mkdir(exist_ok=True)
    encoders.write_text("a file where the folder should be")
    embedder = open_it(tiny)
    assert embedder.build == "torch-fp32"
    assert "cannot be used" in caplog.text


OPENS = """
import logging, sys
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
from rag.embedders import open_embedder, parse_embedder
table = {"provider": "sentence-transformers", "model": sys.argv[1], "build": "onnx-int8"}
embedder = open_embedder(parse_embedder("x", table))
print(embedder.build, embedder.embed_queries(["one"])[0].tobytes().hex(), "torch" in sys.modules)
"""


def test_two_processes_compile_once_between_them_and_neither_keeps_torch(tiny: Path, tmp_path: Path) -> None:
    """What a process that was killed has left is swept away."""
    key = order(tiny).key
    left = tmp_path / "encoders" / f".{key}-left"
    left.mkdir(parents=True)
    environment = {**os.environ, "RAG_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", OPENS, str(tiny)]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert "".join(said).count("Compiling the model tiny-bert, once for this machine") == 1
    answers = {text.splitlines()[-1] for text in said}
    assert len(answers) == 1
    build, vector, torch = answers.pop().split()
    assert (build, torch) == ("onnx-int8", "False")
    assert np.frombuffer(bytes.fromhex(vector), np.float32).shape == (32,)
    assert {path.name for path in (tmp_path / "encoders").iterdir()} == {key, f"{key}.lock"}


def test_a_process_that_fails_to_compile_leaves_the_model_to_torch(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAG_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled.sys, "executable", "/bin/false")
    assert open_it(tiny).build == "torch-fp32"
    assert "The model tiny-bert is not compiled: it ended with 1" in caplog.text
    assert not list((tmp_path / "encoders").glob(".*"))
