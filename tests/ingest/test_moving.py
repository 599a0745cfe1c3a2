"""The short form of the campaign of moves; `python -m tests.campaigns.moving` is the long one."""

from __future__ import annotations

from pathlib import Path

from ingest.beir import CorpusLine
from tests.campaigns.kills import texts_of
from tests.campaigns.moving import campaign


def test_a_move_that_is_killed_computes_nothing_and_changes_nothing(tmp_path: Path) -> None:
    corpus = [CorpusLine(f"{i}", f"{i}", text) for i, text in enumerate(texts_of(None, 40))]
    questions = [f"sentence about matter {i}" for i in range(20)]
    record = campaign(corpus, questions, tmp_path, chunk_tokens=64, engine="flat")
    assert record["chunks"] > 300
    assert record["embedding calls"] == 0
