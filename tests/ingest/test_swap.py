"""The short form of the campaign of generations, without a death; `python -m tests.campaigns.generations` is the long
one."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.generations import campaign


def test_a_swap_there_and_back_under_load_fails_nothing_and_mixes_nothing(tmp_path: Path) -> None:
    record = campaign(
        chunks=80, searches=20, changes=6, seed=3, between=0.4, kill=False, anew=False, data=tmp_path / "data"
    )
    assert record["failed, empty or mixed"] == 0
    assert record["changes"] > 0
