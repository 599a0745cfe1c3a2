"""Who may see again what was answered, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from indexes.errors import NotThere
from ingest import intake
from rag import listing
from rag.access import Caller
from rag.answer import Answer
from rag.ask import Ask, answer, prepare
from rag.backend import Backend
from rag.catalog import schema
from rag.catalog.records import PageRequest
from rag.catalog.responses import StoredResponse
from rag.retrieve import SearchOptions
from rag.traces import find_trace, give_feedback, prune
from tests.backends import add_text, all_documents, open_backend, toy_settings, wait_until_idle


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with open_backend(toy_settings(tmp_path, traces__capture=True)) as opened:
        add_text(opened, intake.create_store(opened, "s"), "a.txt", "Ducks dive for weeds.")
        wait_until_idle(opened)
        yield opened


async def answered(
    backend: Backend,
    question: str = "Which ducks dive for weeds?",
    limit: int | None = None,
    previous: StoredResponse | None = None,
) -> tuple[str, str]:
    """A trace's id and the answer's text."""
    messages = ({"role": "user", "content": question},)
    search = SearchOptions(limit=limit)
    prepared = prepare(backend, Ask((backend.find_store("s"),), messages, kind="chat.completion", search=search))
    last = [piece async for piece in answer(backend, prepared)][-1]
    assert isinstance(last, Answer)
    body = {"id": f"resp_{prepared.trace_id}", "model": "extractive", "text": last.text}
    listing.keep_answer(backend, prepared, "response", body, [], previous)
    return prepared.trace_id, last.text


async def test_words_are_kept_where_the_settings_ask_for_them(backend: Backend) -> None:
    trace_id, text = await answered(backend)
    trace, _ = find_trace(backend, trace_id)
    assert trace.body["answer"]["text"] == text
    assert trace.body["query"]["text"] == "Which ducks dive for weeds?"
    assert trace.body["citations"][0]["quote"] == "Ducks dive for weeds."


def keeper(backend: Backend, **changes: Any) -> Backend:
    store = backend.find_store("s").id
    given = {"stores": frozenset([store]), "permissions": frozenset({"a"}), "key_id": "key_1", **changes}
    return backend.for_caller(Caller(**{"tenant": backend.caller.tenant, **given}))


@pytest.mark.parametrize(
    ("changes", "sees"),
    [
        ({}, True),
        ({"key_id": None}, True),
        ({"key_id": None, "permissions": None, "stores": None}, True),
        ({"permissions": None}, True),
        ({"stores": None}, True),
        ({"key_id": "key_2"}, False),
        ({"permissions": frozenset()}, False),
        ({"permissions": frozenset({"b"})}, False),
        ({"stores": frozenset()}, False),
        ({"tenant": "foreign"}, False),
        ({"tenant": "foreign", "key_id": None, "permissions": None, "stores": None}, False),
    ],
)
async def test_an_answer_is_there_for_whom_it_was_given_to(
    backend: Backend, changes: dict[str, Any], sees: bool
) -> None:
    trace_id, _ = await answered(keeper(backend))
    other = backend.for_caller(Caller(**{**vars(keeper(backend).caller), **changes}))
    ways = [
        lambda: find_trace(other, trace_id),
        lambda: give_feedback(other, trace_id, {"name": "n", "value": 1, "source": "code"}),
        lambda: listing.stored_answer(other, "response", f"resp_{trace_id}"),
        lambda: listing.forget_answer(other, "response", f"resp_{trace_id}"),
    ]
    for way in ways:
        if sees:
            way()
        else:
            with pytest.raises(NotThere):
                way()


async def test_what_cannot_be_worked_out_later_does_not_cost_the_trace(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    owner = {
        "tenant": backend.caller.tenant,
        "key_id": None,
        "permissions": None,
        "stores": ",1,",
        "created_at": int(time.time()),
    }
    for name, later in (("a", lambda: {"more": 2}), ("b", lambda: 1 / 0), ("c", None)):
        backend.traces.submit(
            {**owner, "public_id": name, "documents": [], "arms": {}, "body": {"kind": "context"}}, later
        )
    bodies = {name: find_trace(backend, name)[0].body for name in ("a", "b", "c")}
    assert bodies == {"a": {"kind": "context", "more": 2}, "b": {"kind": "context"}, "c": {"kind": "context"}}
    assert "ZeroDivisionError" in caplog.text


def count(backend: Backend, table: sa.Table) -> int:
    with backend.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


async def test_what_stands_on_a_store_goes_with_it(backend: Backend) -> None:
    trace_id, _ = await answered(backend)
    give_feedback(backend, trace_id, {"name": "n", "value": 1, "source": "code"})
    intake.delete_store(backend, backend.find_store("s"))
    assert [count(backend, table) for table in (schema.traces, schema.feedback, schema.responses)] == [0, 0, 0]


async def test_what_repeats_a_document_goes_with_it(backend: Backend) -> None:
    store = backend.find_store("s")
    add_text(backend, store, "b.txt", "Geese graze on grass.")
    wait_until_idle(backend)
    documents = all_documents(backend, store)
    kept, _ = await answered(backend, "Which geese graze on grass?", limit=1)
    gone, _ = await answered(backend)
    first = listing.stored_answer(backend, "response", f"resp_{gone}")
    after, _ = await answered(backend, "Which geese graze on grass?", limit=1, previous=first)
    intake.delete_documents(backend, [documents["a.txt"]])
    assert find_trace(backend, kept)
    assert listing.stored_answer(backend, "response", f"resp_{kept}")
    for name in (gone, after):
        with pytest.raises(NotThere):
            listing.stored_answer(backend, "response", f"resp_{name}")
    with pytest.raises(NotThere):
        find_trace(backend, gone)
    with backend.database.read() as connection:
        said = [str(row) for table in (schema.responses, schema.traces) for row in connection.execute(sa.select(table))]
    assert said
    assert not [row for row in said if "Ducks dive for weeds." in row]
    assert count(backend, schema.responses_documents) == count(backend, schema.traces_documents) - 1 == 1


async def test_a_trace_is_not_kept_whose_document_goes_before_it_is_written(backend: Backend) -> None:
    store = backend.find_store("s")
    trace_id, _ = await answered(backend)
    backend.traces.flush()
    with backend.database.read() as connection:
        [row] = [dict(row._mapping) for row in connection.execute(sa.select(schema.traces))]
    row.pop("id")
    (document,) = all_documents(backend, store).values()
    intake.delete_documents(backend, [document])
    backend.traces.submit({**row, "public_id": "late", "documents": [document.id], "arms": {}})
    for name in (trace_id, "late"):
        with pytest.raises(NotThere):
            find_trace(backend, name)
    assert (count(backend, schema.traces), count(backend, schema.traces_documents)) == (0, 0)


async def test_an_answer_is_not_there_for_who_may_no_longer_see_its_document(backend: Backend) -> None:
    (document,) = all_documents(backend, backend.find_store("s")).values()
    reader = keeper(backend)
    trace_id, _ = await answered(reader)
    for tags, sees in ((["a", "b"], True), (["b"], False), ([], True)):
        intake.set_attributes(backend, backend.find_store("s"), document.file_public_id, permissions=tags)
        for caller, may in ((reader, sees), (backend, True)):
            if may:
                assert find_trace(caller, trace_id)
                assert listing.stored_answer(caller, "response", f"resp_{trace_id}")
            else:
                with pytest.raises(NotThere):
                    find_trace(caller, trace_id)
                with pytest.raises(NotThere):
                    listing.stored_answer(caller, "response", f"resp_{trace_id}")
        kept = listing.stored_answers(reader, "response", PageRequest()).rows
        assert [row.public_id for row in kept] == [f"resp_{trace_id}"] * sees


async def test_an_answer_that_comes_after_its_document_went_is_not_there(backend: Backend) -> None:
    (document,) = all_documents(backend, backend.find_store("s")).values()
    question = ({"role": "user", "content": "Which ducks dive for weeds?"},)
    prepared = prepare(backend, Ask((backend.find_store("s"),), question, kind="response"))
    intake.delete_documents(backend, [document])
    listing.keep_answer(backend, prepared, "response", {"id": "resp_1", "model": "extractive"}, [])
    with pytest.raises(NotThere):
        listing.stored_answer(backend, "response", "resp_1")


async def test_old_traces_go_and_judged_ones_stay(backend: Backend) -> None:
    ids = [(await answered(backend))[0] for _ in range(6)]
    give_feedback(backend, ids[0], {"name": "n", "value": 1, "source": "code"})
    settings = backend.settings.model_copy(
        update={
            "traces": backend.settings.traces.model_copy(update={"most": 2}),
            "responses": backend.settings.responses.model_copy(update={"most": 1}),
        }
    )
    prune(backend.database, settings)
    with backend.database.read() as connection:
        kept = list(connection.execute(sa.select(schema.traces.c.public_id).order_by(schema.traces.c.id)).scalars())
    assert kept == [ids[0], *ids[-2:]]
    assert count(backend, schema.responses) == 1
    with backend.database.write() as connection:
        day = int(time.time()) - 20 * 86_400
        connection.execute(sa.update(schema.traces).values(created_at=day))
    prune(backend.database, backend.settings)
    assert count(backend, schema.traces) == 1
    with backend.database.write() as connection:
        connection.execute(sa.update(schema.traces).values(created_at=day - 400 * 86_400))
    prune(backend.database, backend.settings)
    assert (count(backend, schema.traces), count(backend, schema.feedback)) == (0, 0)
