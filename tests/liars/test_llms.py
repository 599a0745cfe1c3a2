from __future__ import annotations

import asyncio

import pytest

from tests.contracts.llm import CHECKS, SERVER_CHECKS
from tests.fakes.openai_server import FakeOpenAI
from tests.liars.llms import LIARS, Asking, Quoting
from tests.rag.models.test_models import extractive, openai


@pytest.mark.parametrize("liar", LIARS)
def test_the_contract_catches(liar: str) -> None:
    with FakeOpenAI() as server:
        assert any(_failures(LIARS[liar], server)), f"{liar} passes every check"


@pytest.mark.parametrize("parent", [Asking, Quoting])
def test_the_liars_are_many_and_their_honest_parents_pass(parent: type[Asking | Quoting]) -> None:
    assert len(LIARS) >= 25
    with FakeOpenAI() as server:
        assert list(filter(None, _failures(parent, server))) == []


def _failures(kind, server):
    """The names of the checks that fail, each when asked for."""
    asking = issubclass(kind, Asking)
    # What catches most comes first.
    for check in (*CHECKS[:3], *SERVER_CHECKS, *CHECKS[3:]) if asking else CHECKS:
        server.forget()
        try:
            asyncio.run(asyncio.wait_for(check(openai(server, kind) if asking else extractive(kind)), 20))
        except (Exception, pytest.fail.Exception):  # noqa: BLE001  (whatever goes wrong is a catch)
            yield check.__name__
        else:
            yield ""
