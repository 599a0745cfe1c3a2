"""Runs in MLflow: where `MLFLOW_TRACKING_URI` says, else in `mlflow.db` (SQLite) in the folder of the report.

File stores are refused by MLflow from 3.13 on. `mlflow-skinny` is enough.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

# Before the package is imported: it would tell its makers of its use.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from ingest.trackers import TrackedRun

LONGEST_VALUE = 500
_NOT_IN_A_NAME = re.compile(r"[^\w\-./ ]")


class MlflowTracker:
    """One MLflow experiment; each arm is a run of it. `nDCG@10` is called `nDCG_10` there."""

    def __init__(self, folder: Path, experiment: str) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        artifacts = None if uri else (folder.resolve() / "mlflow").as_uri()
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment, artifacts)

    def note(self, run: TrackedRun) -> None:
        """One run, begun and ended."""
        now = int(time.time() * 1000)
        id_ = self._client.create_run(self._experiment, run_name=run.name).info.run_id
        metrics = [Metric(_name(name), value, now, 0) for name, value in run.figures.items()]
        params = [Param(_name(name), str(value)[:LONGEST_VALUE]) for name, value in run.settings.items()]
        self._client.log_batch(id_, metrics, params)
        self._client.set_terminated(id_)

    def close(self) -> None:
        """Nothing is held."""


def _name(name: str) -> str:
    return _NOT_IN_A_NAME.sub("_", name)
