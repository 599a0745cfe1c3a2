"""The short form of the campaign that loses workers; `python -m tests.campaigns.workers` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.kills import texts_of
from tests.campaigns.workers import TAKEN_WITHIN, campaign


def test_what_a_dead_and_a_stopped_worker_had_is_done_by_another(tmp_path: Path) -> None:
    record = campaign(texts_of(None, 60), tmp_path)
    assert record["documents"] == 60
    assert record["killed"]["taken over after s"] < TAKEN_WITHIN
    assert record["stopped"]["refused after waking"]
