"""Runs in Weights & Biases: offline in the folder `wandb` beside the report (`wandb sync` sends them), unless
`WANDB_MODE` says otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Before the package is imported: it would tell its makers of its errors.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from ingest.trackers import TrackedRun


class WandbTracker:
    """One project; each arm is a run of it."""

    def __init__(self, folder: Path, experiment: str) -> None:
        self._folder = folder
        self._project = experiment.replace("/", "-")[:128]

    def note(self, run: TrackedRun) -> None:
        """One run, begun and ended."""
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True)
        noted = wandb.init(
            project=self._project,
            name=run.name,
            dir=str(self._folder),
            config=dict(run.settings),
            mode=mode,
            settings=settings,
        )
        noted.summary.update(dict(run.figures))
        noted.finish()

    def close(self) -> None:
        """End the process that the package works in."""
        wandb.teardown()
