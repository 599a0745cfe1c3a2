"""The local embedder against the library it wraps, and against models made in the test."""

import asyncio
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from indexes.errors import ChangeRequest
from ingest import intake
from rag.backend import Backend
from rag.catalog import schema
from rag.embedders import EmbedderRegistry, open_embedder, parse_embedder
from rag.embedders import sentence_transformers as ours
from rag.embedders.model_files import PACKAGED_SHA256
from rag.settings import Settings
from rag.tokenizers import plain
from tests.contracts.embedder import UGLY
from tests.small_bert import build_bert

ROOT = Path(__file__).resolve().parents[3]
TABLE = {"provider": "sentence-transformers", "model": "all-MiniLM-L6-v2"}


@pytest.fixture(scope="module")
def default():
    return EmbedderRegistry({}).open("default")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_bert(tmp_path_factory.mktemp("tiny"), prompts={"query": "query: ", "document": "a longer passage: "})


def open_path(path, build="torch", **fields):
    table = {"provider": "sentence-transformers", "model": str(path), "build": build}
    return open_embedder(parse_embedder("x", {**table, **fields}))


# ---- the same vectors as the library --------------------------------------------------------------------------------


def test_its_space_is_read_from_the_model(default):
    space = default.space
    assert (space.provider, space.model) == ("sentence-transformers", "sentence-transformers/all-MiniLM-L6-v2")
    assert space.revision == PACKAGED_SHA256
    assert (space.dimension, space.pooling, space.normalised, space.token_limit) == (384, "mean", True, 256)
    assert (space.query_prefix, space.document_prefix) == ("", "")
    assert default.limit == 254


def test_every_build_is_of_the_same_space(tiny, encoders):
    builds = [open_path(tiny[0], build) for build in ("torch", "onnx-fp32", "auto")]
    assert builds[0].build == "torch-fp32"
    assert builds[1].build == "onnx-fp32"
    assert len({embedder.space.fingerprint for embedder in builds}) == 1
    assert len({embedder.limit for embedder in builds}) == 1


@pytest.mark.parametrize("build", ["torch", "onnx-fp32"])
def test_a_local_model_with_prompts_is_embedded_as_the_library_does(tiny, encoders, build):
    path, library = tiny
    embedder = open_path(path, build)
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


# ---- which build ----------------------------------------------------------------------------------------------------


SERVES_AND_INGESTS = """
import asyncio, sys
from pathlib import Path
import api.app, api.cli
from ingest import intake
from ingest.beir import CorpusLine, ingest_corpus
from ingest.runner import Runner
from rag.backend import Backend
from rag.retrieve import SearchOptions, retrieve
from rag.settings import load_settings

backend = Backend(load_settings(environment={}, flags={"data": Path(sys.argv[1])}))
runner = Runner(backend)
store = intake.create_store(backend, "kitchen")
ingest_corpus(backend, store, [CorpusLine("1", "Kettles", "It whistles when the water boils.")], lambda *_: None)
found = retrieve(backend, [store], "the sound of hot water", SearchOptions(mode="dense")).candidates
print(backend.live_generation(store).build, found[0].text.splitlines()[-1])
print(*sorted({"torch", "transformers", "sentence_transformers", "onnx"} & sys.modules.keys()))
runner.close()
asyncio.run(backend.close())
"""


def test_what_serves_and_ingests_never_imports_torch(default, tmp_path):
    command = [sys.executable, "-c", SERVES_AND_INGESTS, str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    first, second = said.split("\n")[:2]
    assert first == f"{default.build} It whistles when the water boils."
    assert default.build.startswith("onnx-")
    assert second == ""


def test_the_default_is_near_the_original(default):
    """On texts that did not decide whether it may be used."""
    texts = [text for text in UGLY if default.tokenizer.count(text) <= default.limit]
    original = EmbedderRegistry.from_tables({"x": {**TABLE, "build": "torch"}}).open("x")
    cosines = (default.embed_documents(texts) * original.embed_documents(texts)).sum(axis=1)
    assert cosines.min() > 0.97
    assert default.agreement.cosine_min > 0.97
    assert original.agreement is None


def test_a_device_that_is_not_there_is_said_and_the_answers_are_the_same(tiny, encoders, caplog):
    here, there = open_path(tiny[0], "auto"), open_path(tiny[0], "auto", device="cuda:7")
    assert "'cuda:7', which is not there" in caplog.text
    assert there.build == here.build != "torch-fp32"
    assert (there.embed_queries(["one"]) == here.embed_queries(["one"])).all()


def test_without_the_runtime_torch_computes_and_the_log_says_so(tiny, encoders, monkeypatch, caplog):
    find = ours.importlib.util.find_spec
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    embedder = open_path(tiny[0], "auto")
    assert embedder.build == "torch-fp32"
    assert "pip install onnxruntime" in caplog.text
    assert not encoders.exists()


def test_a_build_that_is_refused_says_so_whenever_it_is_opened(tiny, encoders, caplog):
    """This model of random numbers is rounded to something else."""
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            embedder = open_path(tiny[0], "onnx-int8")
        assert embedder.build == "onnx-fp32"
        assert "too far from the original" in caplog.text


def test_a_model_that_cannot_be_exported_is_computed_by_torch(tmp_path, encoders, caplog):
    """Its pooling leaves the prefix out, which a graph of tokens alone does not know."""
    path, library = build_bert(tmp_path, pooling="mean", prompts={"query": "find this: "})
    library.set_pooling_include_prompt(False)
    library.save_pretrained(str(path), create_model_card=False)
    embedder = open_path(path, "auto")
    assert embedder.build == "torch-fp32"
    assert "its pooling leaves the prefix out" in caplog.text
    truth = library.encode_query(["one two"], normalize_embeddings=True)
    assert np.abs(embedder.embed_queries(["one two"]) - truth).max() < 1e-5


def test_settings_that_cannot_be_together_are_refused():
    with pytest.raises(ChangeRequest, match="onnx-int8 computes on the processor"):
        parse_embedder("x", {**TABLE, "build": "onnx-int8", "device": "cuda"})


def open_store(data, path, build, caplog):
    """What is logged when a store is opened whose vectors are now computed like this, and what the catalog knows."""
    tables = {"tiny": {"provider": "sentence-transformers", "model": str(path), "build": build}}
    backend = Backend(Settings(data=data, embedders=tables, embedder="tiny"))
    try:
        store = intake.create_store(backend, "kitchen", only_if_absent=True)
        caplog.clear()
        with caplog.at_level(logging.INFO, "rag.backend"):
            embedder = backend.embedder(backend.live_generation(store))
        with backend.database.read() as connection:
            rows = connection.execute(sa.select(schema.encoder_builds).order_by(schema.encoder_builds.c.id)).all()
        return embedder, [line for line in caplog.messages if "are now made as" in line], rows
    finally:
        asyncio.run(backend.close())


def test_a_store_of_another_build_goes_on_and_the_change_is_noted_once(tiny, encoders, tmp_path, caplog):
    made, said, rows = open_store(tmp_path, tiny[0], "torch", caplog)
    assert (said, [(row.build, row.agreement) for row in rows]) == ([], [("torch-fp32", None)])
    for expected in (1, 0):
        serving, said, rows = open_store(tmp_path, tiny[0], "onnx-fp32", caplog)
        assert serving.space == made.space
        assert len(said) == expected
        assert [row.build for row in rows] == ["torch-fp32", "onnx-fp32"]
        assert rows[1].agreement["cosine_min"] > 0.9999
    back, said, rows = open_store(tmp_path, tiny[0], "torch", caplog)
    assert (back.build, said, len(rows)) == ("torch-fp32", [], 2)
