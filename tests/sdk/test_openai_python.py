"""What a program does that knows OpenAI's Python SDK and nothing of ours: it changes `base_url`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types import VectorStore

from tests.sdk.conftest import KEY, Served

RETURNS = b"# Returns\n\nYou may return a kettle within 30 days. Refunds take one week.\n"
SHIPPING = b"# Shipping\n\nParcels to Norway travel by boat. The boat leaves on Mondays.\n"
BATTERY = b"# Battery\n\nCharge the lamp for two hours. A full battery lasts nine evenings.\n"
SHOP_OF_2024: Any = {
    "type": "and",
    "filters": [
        {"type": "eq", "key": "topic", "value": "shop"},
        {
            "type": "or",
            "filters": [{"type": "gte", "key": "year", "value": 2024}, {"type": "lt", "key": "year", "value": 2000}],
        },
    ],
}
QUESTION: Any = [{"role": "user", "content": "How do parcels travel to Norway?"}]
POLL_MS = 50


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.base_url, api_key=KEY, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def store(client: OpenAI) -> VectorStore:
    """Three documents with attributes."""
    made = client.vector_stores.create(name="sdk", metadata={"team": "support"})
    put(client, made.id, "returns.md", RETURNS, topic="shop", year=2023)
    put(client, made.id, "shipping.md", SHIPPING, topic="shop", year=2024)
    put(client, made.id, "battery.md", BATTERY, topic="lamp", year=2024, public=True)
    return client.vector_stores.retrieve(made.id)


@pytest.fixture
def needs(served: Served) -> Callable[[str], None]:
    return served.needs


def put(client: OpenAI, store_id: str, name: str, content: bytes, **attributes: str | float | bool) -> str:
    """Upload a file, put it into a store and wait for it; its id."""
    file = client.files.create(file=(name, content), purpose="assistants")
    added = client.vector_stores.files.create_and_poll(
        file.id, vector_store_id=store_id, attributes=attributes, poll_interval_ms=POLL_MS
    )
    assert (added.status, added.last_error) == ("completed", None)
    return file.id


def test_files(client: OpenAI) -> None:
    file = client.files.create(file=("a note.md", RETURNS), purpose="assistants")
    assert (file.filename, file.bytes, file.purpose, file.object) == ("a note.md", len(RETURNS), "assistants", "file")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == RETURNS
    assert file in list(client.files.list(purpose="assistants"))
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError) as gone:
        client.files.retrieve(file.id)
    assert (gone.value.code, gone.value.param, gone.value.type) == (
        "file_not_found",
        "file_id",
        "invalid_request_error",
    )


def test_stores(client: OpenAI, store: VectorStore) -> None:
    assert (store.name, store.metadata, store.status) == ("sdk", {"team": "support"}, "completed")
    assert (store.file_counts.completed, store.file_counts.total) == (3, 3)
    assert store.usage_bytes > 0
    changed = client.vector_stores.update(store.id, metadata={"team": "sales"})
    assert changed.metadata == {"team": "sales"}
    others = [client.vector_stores.create(name=f"other {number}").id for number in range(3)]
    listed = [found.id for found in client.vector_stores.list(limit=2, order="asc")]
    assert [found for found in listed if found in others] == others
    for other in others:
        assert client.vector_stores.delete(other).deleted
    assert not set(others) & {found.id for found in client.vector_stores.list()}


def test_files_of_a_store(client: OpenAI, store: VectorStore) -> None:
    files = list(client.vector_stores.files.list(store.id, limit=2))
    assert len({file.id for file in files}) == 3
    assert list(client.vector_stores.files.list(store.id, filter="failed")) == []
    added = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("extra.md", b"# Extra\n\nHerons nest in May.\n"), poll_interval_ms=POLL_MS
    )
    assert added.status == "completed"
    changed = client.vector_stores.files.update(added.id, vector_store_id=store.id, attributes={"topic": "birds"})
    assert changed.attributes == {"topic": "birds"}
    content = client.vector_stores.files.content(added.id, vector_store_id=store.id)
    assert "Herons" in "".join(part.text or "" for part in content)
    assert client.vector_stores.files.delete(added.id, vector_store_id=store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.retrieve(added.id, vector_store_id=store.id)


def test_a_file_that_cannot_be_read_ends_as_failed(client: OpenAI, store: VectorStore) -> None:
    broken = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("broken.pdf", b"%PDF-1.7\nno"), poll_interval_ms=POLL_MS
    )
    assert broken.status == "failed"
    assert broken.last_error is not None
    assert broken.last_error.code == "invalid_file"
    assert client.vector_stores.files.delete(broken.id, vector_store_id=store.id).deleted


def test_search_with_nested_filters(client: OpenAI, store: VectorStore) -> None:
    found = client.vector_stores.search(store.id, query="parcels to Norway", max_num_results=2)
    assert found.data[0].filename == "shipping.md"
    assert "Norway" in found.data[0].content[0].text
    assert found.data[0].attributes == {"topic": "shop", "year": 2024}
    assert len(found.data) == 2
    filtered = client.vector_stores.search(store.id, query="kettle lamp boat", filters=SHOP_OF_2024)
    assert [hit.filename for hit in filtered.data] == ["shipping.md"]
    relevant = client.vector_stores.search(
        store.id,
        query=["xyzzy", "quux"],
        ranking_options={"ranker": "auto", "score_threshold": 1.0},
        rewrite_query=True,
    )
    assert relevant.data == []


def test_chat_at_once_and_streamed(client: OpenAI, store: VectorStore) -> None:
    asked: Any = {"model": "extractive", "messages": QUESTION, "extra_body": {"vector_store_ids": [store.id]}}
    whole = client.chat.completions.create(**asked)
    message = whole.choices[0].message
    assert message.content is not None
    assert "boat" in message.content
    assert message.annotations is not None
    assert {note.type for note in message.annotations} == {"url_citation"}
    citations = whole.model_extra["citations"] if whole.model_extra else []
    assert citations[0]["filename"] == "shipping.md"
    assert citations[0]["quote"] in SHIPPING.decode()
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == message.content
    used = chunks[-1].usage
    assert used is not None
    assert used.completion_tokens == whole.usage.completion_tokens
    assert used.total_tokens == used.prompt_tokens + used.completion_tokens
    ends = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert [end.choices[0].finish_reason for end in ends] == ["stop"]
    assert ends[0].model_extra is not None
    assert ends[0].model_extra["citations"] == citations


def test_chat_of_an_async_client(served: Served, store: VectorStore) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key=KEY) as client:
            stream = await client.chat.completions.create(
                model="extractive", messages=QUESTION, stream=True, extra_body={"vector_store_ids": [store.id]}
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert "boat" in asyncio.run(ask())


def test_models(client: OpenAI, needs: Callable[[str], None]) -> None:
    models = {model.id: model for model in client.models.list()}
    assert models["extractive"].object == "model"
    assert client.models.retrieve("extractive") == models["extractive"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")
    needs("/v1/embeddings")
    assert "toy-384" in models


@pytest.mark.parametrize("how", ["bodies", "uploads"])
def test_batches(client: OpenAI, needs: Callable[[str], None], how: str) -> None:
    needs("/v1/vector_stores/{vector_store_id}/file_batches")
    store = client.vector_stores.create(name=f"batch of {how}")
    named = [("returns.md", RETURNS), ("shipping.md", SHIPPING), ("broken.pdf", b"%PDF-1.7\nno")]
    batches = client.vector_stores.file_batches
    if how == "uploads":
        batch = batches.upload_and_poll(store.id, files=named, poll_interval_ms=POLL_MS)
    else:
        files = [client.files.create(file=file, purpose="assistants") for file in named]
        bodies: Any = [{"file_id": file.id, "attributes": {"name": file.filename}} for file in files]
        batch = batches.create_and_poll(store.id, files=bodies, poll_interval_ms=POLL_MS)
    assert (batch.object, batch.vector_store_id) == ("vector_store.files_batch", store.id)
    assert batch.status in ("completed", "failed")
    assert (batch.file_counts.completed, batch.file_counts.failed, batch.file_counts.total) == (2, 1, 3)
    assert batches.retrieve(batch.id, vector_store_id=store.id) == batch
    done = list(batches.list_files(batch.id, vector_store_id=store.id, filter="completed"))
    assert len(done) == 2
    assert client.vector_stores.search(store.id, query="Norway").data[0].filename == "shipping.md"
    assert client.vector_stores.delete(store.id).deleted


def test_a_batch_is_cancelled(client: OpenAI, needs: Callable[[str], None]) -> None:
    needs("/v1/vector_stores/{vector_store_id}/file_batches")
    store = client.vector_stores.create(name="cancelled batch")
    files = [client.files.create(file=(f"{n}.md", RETURNS + str(n).encode()), purpose="assistants") for n in range(12)]
    batch = client.vector_stores.file_batches.create(store.id, file_ids=[file.id for file in files])
    client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
    ended = client.vector_stores.file_batches.poll(batch.id, vector_store_id=store.id, poll_interval_ms=POLL_MS)
    assert ended.status in ("cancelled", "completed")
    assert (ended.file_counts.in_progress, ended.file_counts.total) == (0, 12)
    assert client.vector_stores.delete(store.id).deleted


def test_responses_with_file_search(client: OpenAI, store: VectorStore, needs: Callable[[str], None]) -> None:
    needs("/v1/responses")
    search: Any = {"type": "file_search", "vector_store_ids": [store.id], "filters": SHOP_OF_2024, "max_num_results": 3}
    asked: Any = {"model": "extractive", "input": QUESTION[0]["content"], "tools": [search]}
    whole = client.responses.create(**asked, include=["file_search_call.results"])
    assert whole.status == "completed"
    assert "boat" in whole.output_text
    call = next(item for item in whole.output if item.type == "file_search_call")
    assert call.status == "completed"
    assert [result.filename for result in call.results or []] == ["shipping.md"]
    message = next(item for item in whole.output if item.type == "message")
    part = message.content[0]
    assert part.type == "output_text"
    assert next(note.filename for note in part.annotations if note.type == "file_citation") == "shipping.md"

    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[1], kinds[-1]) == ("response.created", "response.in_progress", "response.completed")
    assert [kind for kind in kinds if "file_search_call" in kind] == [
        "response.file_search_call.in_progress",
        "response.file_search_call.searching",
        "response.file_search_call.completed",
    ]
    assert "response.output_text.annotation.added" in kinds
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert text == last.response.output_text == whole.output_text
    plain = next(item for item in last.response.output if item.type == "file_search_call")
    assert plain.results is None

    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text == whole.output_text


def test_responses_that_follow_one_another(client: OpenAI, store: VectorStore, needs: Callable[[str], None]) -> None:
    needs("/v1/responses")
    search: Any = {"type": "file_search", "vector_store_ids": [store.id]}
    first = client.responses.create(model="extractive", input="How do parcels travel to Norway?", tools=[search])
    second = client.responses.create(
        model="extractive", input="And on which day does it leave?", tools=[search], previous_response_id=first.id
    )
    assert second.previous_response_id == first.id
    assert "Mondays" in second.output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_embeddings(client: OpenAI, needs: Callable[[str], None]) -> None:
    needs("/v1/embeddings")
    texts = ["a kettle", "a lamp"]
    made = client.embeddings.create(model="toy-384", input=texts)  # the SDK asks for base64 and decodes it
    assert [item.index for item in made.data] == [0, 1]
    assert all(len(item.embedding) == 384 for item in made.data)
    floats = client.embeddings.create(model="toy-384", input=texts, encoding_format="float")
    np.testing.assert_allclose(made.data[1].embedding, floats.data[1].embedding, atol=1e-6)
    coded: Any = client.embeddings.create(model="toy-384", input=texts[0], encoding_format="base64").data[0].embedding
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(coded), "<f4"), floats.data[0].embedding, atol=1e-6)
    assert made.usage.total_tokens > 0
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="none", input="a kettle")


def test_errors_are_those_of_the_sdk(client: OpenAI, served: Served, store: VectorStore) -> None:
    wrong = OpenAI(base_url=served.base_url, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    wrong.close()
    with pytest.raises(openai.NotFoundError) as missing:
        client.vector_stores.search("vs_" + "0" * 24, query="lamp")
    assert missing.value.code == "vector_store_not_found"
    like: Any = {"type": "like", "key": "year", "value": 1}
    with pytest.raises(openai.BadRequestError) as refused:
        client.vector_stores.search(store.id, query="lamp", filters=like)
    assert refused.value.param is not None
    assert refused.value.param.startswith("filters")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="none", messages=QUESTION)


def test_what_is_deleted_is_gone(client: OpenAI) -> None:
    store = client.vector_stores.create(name="soon gone")
    file = put(client, store.id, "returns.md", RETURNS)
    assert client.vector_stores.search(store.id, query="kettle").data
    assert client.files.delete(file).deleted
    assert client.vector_stores.search(store.id, query="kettle").data == []
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(store.id)
