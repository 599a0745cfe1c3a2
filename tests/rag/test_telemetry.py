"""What stands in spans where words are let in, and what a model's stream is worth when nobody reads on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from ingest import intake
from rag.ask import Ask, answer, prepare
from rag.backend import Backend
from rag.models import Sampling
from rag.models.registry import EXTRACTIVE, ModelRegistry
from rag.telemetry import Telemetry
from tests.backends import add_text, open_backend, toy_settings, wait_until_idle
from tests.spans import Spans, id_of, parent_of

QUESTION = "Which ducks dive for weeds?"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with open_backend(toy_settings(tmp_path_factory.mktemp("data"))) as opened:
        add_text(opened, intake.create_store(opened, "s"), "a.txt", "Ducks dive for weeds.")
        wait_until_idle(opened)
        yield opened


@pytest.mark.parametrize("capture", [True, False])
async def test_words_are_in_it_where_the_settings_let_them(backend: Backend, capture: bool) -> None:
    spans = Spans()
    watched = backend.for_caller(backend.caller)
    watched.telemetry = spans.telemetry(capture=capture)
    watched.models = ModelRegistry({}, telemetry=watched.telemetry)
    asked = Ask((backend.find_store("s"),), ({"role": "user", "content": QUESTION},), kind="response")
    with spans.provider.get_tracer("caller").start_as_current_span("caller") as caller:
        prepared = prepare(watched, asked)
        _ = [piece async for piece in answer(watched, prepared)]
    retrieval, chat = spans.one("retrieval").attributes or {}, spans.one("chat").attributes or {}
    assert prepared.otel_trace_id == f"{caller.get_span_context().trace_id:032x}"
    assert parent_of(spans.one("chat")) == id_of(spans.one("caller"))
    assert chat["gen_ai.provider.name"] == "extractive"
    if not capture:
        assert "weeds" not in spans.words()
        return
    assert retrieval["gen_ai.retrieval.query.text"] == QUESTION
    (document,) = json.loads(str(retrieval["gen_ai.retrieval.documents"]))
    assert document["content"] == "Ducks dive for weeds."
    system, *_, user = json.loads(str(chat["gen_ai.input.messages"]))
    assert (system["role"], user["role"]) == ("system", "user")
    assert QUESTION in user["parts"][0]["content"]
    (said,) = json.loads(str(chat["gen_ai.output.messages"]))
    assert said["parts"][0]["content"].startswith("Ducks dive for weeds.")


async def test_a_reader_who_has_enough_is_no_error_and_closes_the_model() -> None:
    spans, closed = Spans(), []

    async def deltas():
        try:
            for text in "abc":
                yield type("Piece", (), {"text": text, "finish_reason": None, "usage": None})
        finally:
            closed.append(True)

    async with aclosing(spans.telemetry().chat(EXTRACTIVE, (), Sampling(), deltas())) as pieces:
        assert (await anext(pieces)).text == "a"
    assert closed
    assert spans.one("chat").status.is_unset
    assert "error.type" not in (spans.one("chat").attributes or {})


def test_nothing_is_recorded_where_nobody_set_it_up() -> None:
    assert Telemetry().mark("trace_1") is None
