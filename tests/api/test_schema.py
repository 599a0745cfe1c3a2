"""The short form of the campaign that asks everything the schema allows; `python -m tests.campaigns.schema` is the long
one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.schema import run, served

pytest.importorskip("schemathesis", reason="schemathesis is not installed")


def test_every_answer_keeps_the_schema(tmp_path: Path) -> None:
    """The examples, and each field at each of its borders and beyond: the same requests every time."""
    with served(tmp_path) as url:
        outcome = run(url, tmp_path, 1, "--phases", "examples,coverage")
    assert outcome.failures == [], outcome.log
    assert outcome.cases >= 1000
    assert outcome.operations >= 30
