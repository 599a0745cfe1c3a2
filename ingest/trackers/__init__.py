"""Trackers: where the runs of experiments are noted, beside the report.

To add one: a file in this folder and a line in `TRACKERS`; or, from another package, an entry point in the group
`rag.trackers`. What stands there is called with the folder of the report and the experiment's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from indexes.registry import resolve


@dataclass(frozen=True)
class TrackedRun:
    """One arm of an experiment."""

    name: str
    settings: Mapping[str, str | int | float | bool]
    """What was chosen for it; what is not named was as the installation is set up."""
    figures: Mapping[str, float]
    """Means of measures by their own names, `milliseconds.NAME.p50` and `.p95`, `tokens.NAME`."""


class Tracker(Protocol):
    """Notes runs under an experiment. Nothing leaves this machine unless the tool's own settings name a server."""

    def note(self, run: TrackedRun) -> None:
        """Keep a run with everything in it. Names that the tool does not take are changed, never left out."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...


TRACKERS = {
    "jsonlines": "ingest.trackers.jsonlines:JsonLinesTracker",
    "mlflow": "ingest.trackers.mlflow:MlflowTracker",
    "wandb": "ingest.trackers.wandb:WandbTracker",
}
ENTRY_POINTS = "rag.trackers"


def open_tracker(name: str, folder: Path, experiment: str) -> Tracker:
    """The tracker of this name. Raises Unsupported for an unknown name or a missing package."""
    tracker: Tracker = resolve("tracker", TRACKERS, ENTRY_POINTS, name)(folder, experiment)
    return tracker
