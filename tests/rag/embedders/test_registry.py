"""Specs are strict, aliases open once, spaces of one width never mix."""

import threading

import numpy as np
import pytest

from indexes.errors import ChangeRequest, Unsupported
from rag.embedders import (
    BUILT_IN,
    EMBEDDERS,
    EmbedderRegistry,
    EmbedderSpec,
    open_embedder,
    parse_embedder,
    require_compared,
)
from rag.spaces import require_same_space


def test_a_full_table_becomes_a_spec():
    table = {
        "provider": "openai",
        "model": "embed-1",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key_env": "SOME_KEY",
        "dimension": 8,
        "query_prefix": "q: ",
        "batch_size": 3,
        "timeout": 5,
        "retries": 0,
        "tokenizer": "bytes",
        "token_limit": 100,
    }
    spec = parse_embedder("hosted", table)
    assert {field: getattr(spec, field) for field in table} == table
    assert spec.name == "hosted"
    assert spec.document_prefix is None


@pytest.mark.parametrize(
    ("change", "at_fault"),
    [
        ({"modle": "x"}, "modle"),
        ({"model": ""}, "model"),
        ({"dimension": "384"}, "dimension"),
        ({"dimension": 0}, "dimension"),
        ({"dimension": True}, "dimension"),
        ({"timeout": -1}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"device": "cpu"}, "device"),
        ({"api_key": "sk-secret"}, "api_key"),
    ],
)
def test_a_wrong_field_is_named(change, at_fault):
    with pytest.raises(ChangeRequest, match=at_fault) as caught:
        parse_embedder("x", {"provider": "openai", "model": "m", **change})
    assert caught.value.code == "invalid_settings"
    assert "sk-secret" not in caught.value.message


def test_a_field_of_another_provider_is_refused():
    with pytest.raises(ChangeRequest, match="base_url"):
        parse_embedder("x", {"provider": "sentence-transformers", "model": "m", "base_url": "http://x"})


def test_unknown_names_answer_with_the_known():
    with pytest.raises(Unsupported, match=r"default.*toy-256"):
        EmbedderRegistry({}).open("defualt")
    with pytest.raises(Unsupported, match="sentence-transformers"):
        open_embedder(EmbedderSpec("x", "sentense-transformers", "m"))
    with pytest.raises(Unsupported, match=r"toy-256.*toy-384"):
        open_embedder(EmbedderSpec("x", "toy", "toy-1"))


def test_the_default_can_be_replaced_and_the_table_is_whole():
    registry = EmbedderRegistry.from_tables({"default": {"provider": "toy", "model": "toy-256"}})
    assert registry.open("default").space.model == "toy-256"
    assert set(BUILT_IN) <= set(registry.names())
    assert {spec.provider for spec in BUILT_IN.values()} <= set(EMBEDDERS)


def test_an_alias_opens_once_whoever_asks():
    registry = EmbedderRegistry({})
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(registry.open("toy-384"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    assert len({id(embedder) for embedder in opened}) == 1


def test_two_toys_of_one_width_are_two_spaces():
    registry = EmbedderRegistry({})
    one, other = registry.open("toy-384"), registry.open("toy-384-b")
    assert one.space.dimension == other.space.dimension == 384
    assert one.space.fingerprint != other.space.fingerprint
    with pytest.raises(ChangeRequest, match=r"toy-384 .*toy-384-b") as caught:
        require_same_space(one.space, other.space, "The store 'manuals'")
    assert caught.value.code == "space_mismatch"
    texts = ["the runner crosses the finish line", "a completely different matter"]
    across = np.sum(one.embed_documents(texts) * other.embed_documents(texts), axis=1)
    assert np.abs(across).max() < 0.4


def test_a_build_that_was_not_compared_with_the_original_stands_beside_no_other():
    embedder = EmbedderRegistry({}).open("toy-256")
    require_compared("toy", embedder)
    with pytest.raises(ChangeRequest, match="'another'") as caught:
        require_compared("another", embedder)
    assert caught.value.code == "build_mismatch"
