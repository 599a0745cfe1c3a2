"""Runs as lines of `runs.jsonl` in the folder of the report; those of earlier experiments stay."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ingest.trackers import TrackedRun


class JsonLinesTracker:
    """The tracker that is always there."""

    def __init__(self, folder: Path, experiment: str) -> None:
        self._experiment = experiment
        self._file = (folder / "runs.jsonl").open("a", encoding="utf-8")

    def note(self, run: TrackedRun) -> None:
        """One line."""
        line = {
            "experiment": self._experiment,
            "run": run.name,
            "at": int(time.time()),
            "settings": dict(run.settings),
            "figures": dict(run.figures),
        }
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
