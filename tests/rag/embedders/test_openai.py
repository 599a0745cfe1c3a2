"""The OpenAI embedder against a scripted server on loopback: right rows or a typed error, never a wrong vector."""

import numpy as np
import pytest

from indexes.errors import ChangeRequest, TryLater
from rag.embedders import EmbedderRegistry
from tests.fakes.openai_server import (
    Drop,
    FakeOpenAI,
    Hang,
    Nonsense,
    Rows,
    Status,
    doubled_row,
    missing_row,
    not_finite,
    reversed_rows,
    toy_vector,
    wrong_dimension,
    zero_row,
)

KEY = "sk-very-secret"
TEXTS = ["alpha", "beta beta", "ünïcödé 🙂", "", "the end"]


def expected(texts, dimension=8):
    rows = np.array([toy_vector(text or " ", dimension) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def server():
    with FakeOpenAI() as running:
        yield running


@pytest.fixture
def open_against(server, monkeypatch):
    monkeypatch.setenv("TEST_EMBEDDER_KEY", KEY)
    # Nothing of this may reach our client.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    registries = []

    def open_it(**fields):
        table = {"provider": "openai", "model": "embed-1", "base_url": server.base_url, "dimension": 8, "retries": 2}
        registry = EmbedderRegistry.from_tables({"e": {**table, "api_key_env": "TEST_EMBEDDER_KEY", **fields}})
        registries.append(registry)
        return registry.open("e")

    yield open_it
    for registry in registries:
        registry.close()


def test_the_key_is_sent(server, open_against):
    open_against().embed_documents(TEXTS)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_servers_that_ignore_base64_give_the_same(server, open_against):
    server.ignore_base64 = True
    assert np.allclose(open_against().embed_queries(TEXTS), expected(TEXTS), atol=1e-6)


def test_a_batch_is_cut_into_requests(server, open_against):
    open_against(batch_size=3).embed_documents(["text"] * 10)
    assert [len(request.body["input"]) for request in server.requests] == [3, 3, 3, 1]


def test_no_texts_make_no_request(server, open_against):
    open_against().embed_documents([])
    assert server.requests == []


def test_rows_in_the_wrong_order_are_put_right(server, open_against):
    server.embeddings(reversed_rows())
    assert np.allclose(open_against().embed_documents(TEXTS), expected(TEXTS), atol=1e-6)


@pytest.mark.parametrize("fault", [Status(429, retry_after=0.05), Status(500), Drop()])
def test_a_passing_fault_is_retried(server, open_against, fault):
    server.embeddings(fault)
    assert np.allclose(open_against().embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(server.requests) == 2


def test_refused_credentials_are_mended_where_the_key_is_named(server, open_against):
    server.embeddings(Status(401), Status(401))
    for variable, advice in (("TEST_EMBEDDER_KEY", "TEST_EMBEDDER_KEY"), (None, "`api_key_env`")):
        with pytest.raises(TryLater) as caught:
            open_against(api_key_env=variable).embed_documents(TEXTS)
        assert advice in caught.value.message
        assert "OPENAI_API_KEY" not in caught.value.message


@pytest.mark.parametrize(
    ("fault", "family", "code"),
    [
        (Status(429, retry_after=7), TryLater, "rate_limit_exceeded"),
        (Status(503), TryLater, "unavailable"),
        (Status(401), TryLater, "unavailable"),
        (Status(302), TryLater, "unavailable"),
        (Status(400, f"input too long, key {KEY}"), ChangeRequest, "embedder_refused"),
        (Hang(20), TryLater, "timeout"),
        (Drop(), TryLater, "unavailable"),
        (Nonsense(), TryLater, "bad_embeddings"),
        (Nonsense(content_type="text/html"), TryLater, "bad_embeddings"),
        (Nonsense(b"{}"), TryLater, "bad_embeddings"),
        (Nonsense(b'{"data": [1, 2]}'), TryLater, "bad_embeddings"),
        (missing_row(), TryLater, "bad_embeddings"),
        (doubled_row(), TryLater, "bad_embeddings"),
        (not_finite(), TryLater, "bad_embeddings"),
        (zero_row(), TryLater, "bad_embeddings"),
        (wrong_dimension(), ChangeRequest, "wrong_dimension"),
        (
            Rows(lambda rows: [{**row, "embedding": row["embedding"] * 2} for row in rows]),
            ChangeRequest,
            "wrong_dimension",
        ),
        (Rows(lambda rows: [{**row, "index": row["index"] + 1} for row in rows]), TryLater, "bad_embeddings"),
        (Rows(lambda rows: [*rows, rows[0]]), TryLater, "bad_embeddings"),
        (Rows(lambda rows: [{**row, "index": None} for row in rows]), TryLater, "bad_embeddings"),
    ],
)
@pytest.mark.parametrize("as_numbers", [False, True])
def test_a_lasting_fault_is_a_typed_error_that_names_the_endpoint(
    server, open_against, fault, family, code, as_numbers
):
    server.ignore_base64 = as_numbers
    server.embeddings(fault)
    with pytest.raises(family) as caught:
        open_against(retries=0, timeout=0.3).embed_documents(TEXTS)
    assert caught.value.code == code
    assert server.base_url in caught.value.message
    assert "embed-1" in caught.value.message
    assert KEY not in caught.value.message
    if isinstance(fault, Status) and fault.retry_after:
        assert caught.value.retry_after == 7


@pytest.mark.parametrize("embedding", [None, ["x"] * 8, "not base64!", 3, []])
def test_rows_that_are_no_vectors_are_a_typed_error(server, open_against, embedding):
    server.ignore_base64 = True
    server.embeddings(Rows(lambda rows: [{**row, "embedding": embedding} for row in rows]))
    with pytest.raises((TryLater, ChangeRequest)) as caught:
        open_against(retries=0).embed_documents(TEXTS)
    assert caught.value.code in ("bad_embeddings", "wrong_dimension")
    if not isinstance(embedding, str):
        server.embeddings(Rows(lambda rows: [{**row, "embedding": embedding} for row in rows]))
        with pytest.raises((TryLater, ChangeRequest)):
            open_against(retries=0, dimension=None).embed_documents(TEXTS)


def test_a_closed_port_is_try_later(open_against):
    with pytest.raises(TryLater, match=r"127\.0\.0\.1:9"):
        open_against(base_url="http://127.0.0.1:9/v1", retries=0).embed_queries(["x"])


def test_a_text_over_the_limit_is_refused_before_anything_is_sent(server, open_against):
    embedder = open_against(tokenizer="bytes", token_limit=10, document_prefix="ab")
    with pytest.raises(ChangeRequest):
        embedder.embed_documents(["ok", "123456789"])
    assert server.requests == []


def test_without_its_key_it_does_not_start(open_against, monkeypatch):
    monkeypatch.delenv("TEST_EMBEDDER_KEY")
    with pytest.raises(TryLater, match="TEST_EMBEDDER_KEY"):
        open_against()


def test_the_hosted_services_key_goes_to_no_other_server(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    table = {"provider": "openai", "model": "embed-1", "base_url": server.base_url}
    registry = EmbedderRegistry.from_tables({"e": table})
    assert registry.open("e").space.dimension == 8, "asked for once, since the table does not say"
    registry.open("e").embed_queries(["x"])
    registry.close()
    assert len(server.requests) == 2
    assert not any(KEY in str(request.headers) for request in server.requests)
