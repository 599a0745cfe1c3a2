"""Embeddings and models over HTTP."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from rag.embedders import BUILT_IN, open_embedder
from rag.embedders.toy import ToyEmbedder
from rag.tokenizers import open_tokenizer
from tests.api.running import refused

TEXTS = ["Charge the lamp for two hours.", "Parcels travel by boat 🚢", ""]


@pytest.fixture(scope="module")
def toy() -> ToyEmbedder:
    embedder = open_embedder(BUILT_IN["toy-384"])
    assert isinstance(embedder, ToyEmbedder)
    return embedder


def _embed(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/embeddings", json={"model": "toy-384", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_texts_become_the_vectors_of_the_embedder_in_order(http: httpx.Client, toy: ToyEmbedder) -> None:
    answer = _embed(http, input=TEXTS)
    tokens = sum(toy.tokenizer.count(text) for text in TEXTS)
    assert {name: answer[name] for name in ("object", "model", "usage")} == {
        "object": "list",
        "model": "toy-384",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    assert [(row["object"], row["index"]) for row in answer["data"]] == [("embedding", n) for n in range(3)]
    vectors = np.array([row["embedding"] for row in answer["data"]])
    np.testing.assert_allclose(vectors, toy.embed_documents(TEXTS), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = _embed(http, input=TEXTS[0], dimensions=384, user="somebody", input_type="query")["data"]
    assert [row["embedding"] for row in alone] == [answer["data"][0]["embedding"]]


def test_base64_holds_the_same_numbers(http: httpx.Client, toy: ToyEmbedder) -> None:
    answer = _embed(http, input=TEXTS, encoding_format="base64")
    read = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in answer["data"]]
    np.testing.assert_array_equal(np.stack(read), toy.embed_documents(TEXTS))


def test_more_texts_than_are_embedded_at_once_keep_their_order(http: httpx.Client, toy: ToyEmbedder) -> None:
    texts = [f"text number {n}" for n in range(300)]
    vectors = np.array([row["embedding"] for row in _embed(http, input=texts)["data"]])
    np.testing.assert_allclose(vectors, toy.embed_documents(texts), atol=1e-6)


def test_token_ids_are_read_by_the_embedders_own_encoding(http: httpx.Client) -> None:
    encode = open_tokenizer("o200k_base")._engine.encode  # type: ignore[attr-defined]
    ids = [encode(text) for text in TEXTS[:2]]
    assert _embed(http, input=ids)["data"] == _embed(http, input=TEXTS[:2])["data"]
    assert _embed(http, input=ids[1])["usage"]["prompt_tokens"] == len(ids[1])
    for wrong in ([10**6], [-1], [2**40], [ids[1][-1]]):
        answer = http.post("/v1/embeddings", json={"model": "toy-384", "input": wrong})
        refused(answer, 400, "invalid_token")


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "nobody", "input": "x"}, 404, "model_not_found", "model"),
        ({"model": "extractive", "input": "x"}, 404, "model_not_found", "model"),
        ({"model": "toy-384"}, 400, "missing_required_parameter", "input"),
        ({"input": "x"}, 400, "missing_required_parameter", "model"),
        ({"model": "toy-384", "input": []}, 400, "invalid_value", "input"),
        ({"model": "toy-384", "input": ["x"] * 2049}, 400, "invalid_value", "input"),
        ({"model": "toy-384", "input": ["x", 5]}, 400, "invalid_value", None),
        ({"model": "toy-384", "input": [[]]}, 400, "invalid_value", None),
        ({"model": "toy-384", "input": None}, 400, "invalid_value", "input"),
        ({"model": "toy-384", "input": "x", "encoding_format": "hex"}, 400, "invalid_value", "encoding_format"),
        ({"model": "toy-384", "input": "x", "dimensions": 0}, 400, "invalid_value", "dimensions"),
        ({"model": "toy-384", "input": "x", "dimensions": 100}, 400, "unsupported_dimensions", "dimensions"),
        ({"model": "toy-384", "input": "x", "dimensions": 385}, 400, "unsupported_dimensions", "dimensions"),
        ({"model": "toy-384", "input": "word " * 600}, 400, "text_too_long", None),
        ({"model": "toy-384", "input": "x", "truncate": True}, 400, "unknown_parameter", "truncate"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_field(
    http: httpx.Client, body: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    answer = http.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert param is None or answer.json()["error"]["param"] == param


def test_an_embedder_that_shortens_gives_fewer_dimensions(http: httpx.Client) -> None:
    whole = np.array(_embed(http, model="short", input=TEXTS[0])["data"][0]["embedding"])
    cut = np.array(_embed(http, model="short", input=TEXTS[0], dimensions=64)["data"][0]["embedding"])
    np.testing.assert_allclose(cut, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)


def test_models_are_the_aliases_and_the_embedders(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    kinds = {row["id"]: row["kind"] for row in listed["data"]}
    assert listed["object"] == "list"
    assert kinds["extractive"] == kinds["scripted"] == "language_model"
    assert kinds["toy-384"] == kinds["default"] == kinds["short"] == "embedder"
    assert len(kinds) == len(listed["data"])
    for row in listed["data"]:
        assert http.get(f"/v1/models/{row['id']}").json() == row
    assert http.get("/v1/models/scripted").json() == {
        "id": "scripted",
        "object": "model",
        "created": 0,
        "owned_by": "openai",
        "shutdown_date": None,
        "kind": "language_model",
        "context_window": 8192,
        "max_output_tokens": 512,
    }
    for method in ("GET", "DELETE"):
        refused(http.request(method, "/v1/models/none"), 404, "model_not_found", "model")
    for name in ("extractive", "toy-384"):
        refused(http.delete(f"/v1/models/{name}"), 403, "model_not_deletable", "model")
        assert http.get(f"/v1/models/{name}").status_code == 200
