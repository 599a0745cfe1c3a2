"""The short form of the campaign of kills; `python -m tests.campaigns.kills` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.kills import campaign, texts_of


def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    record = campaign(kills=3, texts=texts_of(None, 24), seed=11, data=tmp_path / "data")
    assert record["acknowledged operations"] > 0
    assert record["chunks"] >= record["documents at the end"] > 0
