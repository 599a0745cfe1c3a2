"""What a server's `Retry-After` says, in both of its forms, whoever asks the server."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from indexes.errors import TryLater
from rag.embedders import EmbedderSpec
from rag.embedders.openai import OpenAIEmbedder
from rag.models import ModelAlias, Sampling
from rag.models.openai import OpenAILLM
from rag.provider import retry_after
from tests.fakes.openai_server import FakeOpenAI, Status


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e300", 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        *((value, None) for value in ("", "soon", "nan", "inf", "Wed, 99 Oct 2015 07:28:00 GMT")),
    ],
)
def test_seconds_or_a_date_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after(value) == seconds


async def test_embedder_and_model_tell_how_long_to_wait_until_a_date() -> None:
    with FakeOpenAI() as server:
        embedder = OpenAIEmbedder(EmbedderSpec("e", "openai", "m", server.base_url, dimension=8, retries=0))
        llm = OpenAILLM(ModelAlias("m", "openai", "m", 4096, 256, base_url=server.base_url, retries=0))
        busy = Status(429, retry_after=formatdate(time.time() + 40, usegmt=True))
        server.embeddings(busy)
        server.chat(busy)
        with pytest.raises(TryLater) as embedding:
            embedder.embed_queries(["x"])
        with pytest.raises(TryLater) as answering:
            await anext(aiter(llm.stream(({"role": "user", "content": "x"},), Sampling())))
        embedder.close()
        await llm.close()
    for error in (embedding.value, answering.value):
        assert error.retry_after is not None
        assert 30 < error.retry_after <= 40
