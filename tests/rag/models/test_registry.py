"""The registry: strict about its tables, honest about what it knows, lazy about opening."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from indexes.errors import ChangeRequest, NotThere
from rag.context import Context, Message
from rag.models import Delta, ModelAlias, Sampling
from rag.models.extractive import ExtractiveLLM
from rag.models.openai import OpenAILLM
from rag.models.registry import ModelRegistry, merge_sampling

GOOD = """
[small]
provider = "openai"
model = "small-1"
base_url = "http://127.0.0.1:9/v1"
window = 4096
output_limit = 512
tokenizer = "cl100k_base"
timeout = 5

[small.sampling]
temperature = 0.2
stop = ["END"]
"""


class Echo:
    """A provider of one's own."""

    def __init__(self, alias: ModelAlias) -> None:
        self.alias = alias
        self.closed = 0

    async def stream(
        self, messages: tuple[Message, ...], sampling: Sampling, context: Context | None = None
    ) -> AsyncIterator[Delta]:
        yield Delta(messages[-1]["content"], "stop")

    async def close(self) -> None:
        self.closed += 1


def table(**changes: Any) -> dict[str, Any]:
    good = tomllib.loads(GOOD)["small"]
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def test_a_table_becomes_an_alias_with_its_sampling() -> None:
    alias = ModelRegistry(tomllib.loads(GOOD)).get("small")
    assert alias == ModelAlias(
        name="small",
        provider="openai",
        model="small-1",
        base_url="http://127.0.0.1:9/v1",
        window=4096,
        output_limit=512,
        tokenizer="cl100k_base",
        timeout=5.0,
        sampling=Sampling(temperature=0.2, stop=("END",)),
    )


def test_the_extractive_alias_is_always_there_and_the_default() -> None:
    registry = ModelRegistry({})
    alias = registry.get()
    assert alias == registry.get("extractive")
    assert (alias.window, alias.output_limit, alias.tokenizer) == (8192, 1024, "o200k_base")
    assert isinstance(registry.llm(alias), ExtractiveLLM)


def test_the_default_is_a_setting_and_must_exist() -> None:
    assert ModelRegistry({"small": table()}, default="small").get(None).name == "small"
    with pytest.raises(NotThere):
        ModelRegistry({}, default="small")


def test_an_unknown_alias_answers_with_the_known_ones() -> None:
    with pytest.raises(NotThere, match=r"Known: extractive, small\.") as caught:
        ModelRegistry({"small": table()}).get("gpt")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"temprature": 1}, "temprature"),
        ({"api_key": "sk-canary"}, "api_key"),
        ({"provider": None}, "provider"),
        ({"provider": "nobody"}, "provider"),
        ({"provider": "no.such.module:Class"}, "provider"),
        ({"provider": "tests.rag.models.test_registry:Nothing"}, "provider"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"tokenizer": None}, "tokenizer"),
        ({"tokenizer": "nobody"}, "tokenizer"),
        ({"tokenizer": "/no/such/tokenizer.json"}, "tokenizer"),
        ({"chat_template": "/no/such/template.jinja"}, "chat_template"),
        ({"response_formats": ["xml"]}, "response_formats"),
        ({"response_formats": "json_object"}, "response_formats"),
        ({"vector_stores": [""]}, "vector_stores"),
        ({"vector_stores": [1]}, "vector_stores"),
        ({"concurrent": 0}, "concurrent"),
        ({"waiting": -1}, "waiting"),
        ({"wait_seconds": 0}, "wait_seconds"),
        ({"answer_seconds": "long"}, "answer_seconds"),
        ({"window": "4096"}, "window"),
        ({"window": True}, "window"),
        ({"window": 512}, "window"),
        ({"window": 100}, "window"),
        ({"output_limit": 0}, "output_limit"),
        ({"output_limit": 1.5}, "output_limit"),
        ({"message_tokens": -1}, "message_tokens"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"base_url": "file:///etc/passwd"}, "base_url"),
        ({"base_url": "127.0.0.1:9"}, "base_url"),
        ({"base_url": "http://[::1"}, "base_url"),
        ({"base_url": "http://user:sk-canary@127.0.0.1/v1"}, "base_url"),
        ({"sampling": 1}, "sampling"),
        ({"sampling": {"seed": 1}}, "sampling.seed"),
        ({"sampling": {"temperature": 3}}, "sampling.temperature"),
        ({"sampling": {"temperature": "hot"}}, "sampling.temperature"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p"),
        ({"sampling": {"max_tokens": 513}}, "sampling.max_tokens"),
        ({"sampling": {"stop": "END"}}, "sampling.stop"),
        ({"sampling": {"stop": [1]}}, "sampling.stop"),
        ({"sampling": {"stop": [""]}}, "sampling.stop"),
    ],
    ids=str,
)
def test_a_wrong_table_is_refused_by_table_and_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ChangeRequest) as caught:
        ModelRegistry({"mine": table(**changes)})
    assert caught.value.param == f"models.mine.{field}"
    assert "models.mine" in caught.value.message
    assert field.rpartition(".")[2] in caught.value.message
    assert "canary" not in caught.value.message


def test_a_model_that_is_no_table_is_refused() -> None:
    with pytest.raises(ChangeRequest) as caught:
        ModelRegistry({"mine": "gpt"})
    assert caught.value.param == "models.mine"


async def test_a_provider_opens_once_and_closes_once() -> None:
    own = table(provider="tests.rag.models.test_registry:Echo")
    registry = ModelRegistry({"a": own, "b": own, "small": table()})
    a, b = registry.llm(registry.get("a")), registry.llm(registry.get("b"))
    assert registry.llm(registry.get("a")) is a is not b
    assert type(a).__name__ == "Echo"
    assert isinstance(registry.llm(registry.get("small")), OpenAILLM)
    await registry.close()
    await registry.close()
    assert a.closed == b.closed == 1  # type: ignore[attr-defined]


def alias(**changes: Any) -> ModelAlias:
    return ModelRegistry({"small": table(**changes)}).get("small")


def test_the_request_wins_over_the_alias_and_the_alias_over_nothing() -> None:
    assert merge_sampling(alias(), Sampling()) == Sampling(temperature=0.2, max_tokens=512, stop=("END",))
    asked = Sampling(temperature=0.0, top_p=1.0, max_tokens=1, stop=("a", "b"))
    assert merge_sampling(alias(), asked) == asked
    assert merge_sampling(alias(sampling={"max_tokens": 9}), Sampling()).max_tokens == 9


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (Sampling(max_tokens=513), "max_tokens"),
        (Sampling(max_tokens=0), "max_tokens"),
        (Sampling(temperature=2.1), "temperature"),
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(top_p=1.01), "top_p"),
        (Sampling(stop=("a",) * 5), "stop"),
        (Sampling(stop=("a" * 501,)), "stop"),
        (Sampling(stop=("",)), "stop"),
    ],
)
def test_a_request_outside_of_the_limits_is_refused_by_name(asked: Sampling, param: str) -> None:
    with pytest.raises(ChangeRequest) as caught:
        merge_sampling(alias(), asked)
    assert caught.value.param == param


def test_the_limits_themselves_are_allowed() -> None:
    asked = Sampling(temperature=2.0, top_p=1.0, max_tokens=512, stop=("a" * 500,) * 4)
    assert merge_sampling(alias(), asked) == asked
