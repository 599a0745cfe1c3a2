"""`rag eval experiment`: a grid of settings, its table, its report, and the trackers that are told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from api.commands.call import Call, require_here, settings_of
from api.commands.output import print_json, print_table, print_text
from api.commands.progress import stages
from ingest.experiments import Report, file_name, read_experiment, run_experiment
from ingest.reports import as_html, as_json, tracked_runs
from ingest.trackers import open_tracker
from rag.backend import Backend

ALWAYS = "jsonlines"


def run(call: Call, path: Path, out: Path | None, *, trackers: Sequence[str], keep: bool) -> None:
    """Carry out the experiment in a file; its report and its runs go into a folder."""
    require_here(call, "An experiment")
    experiment = read_experiment(path)
    folder = out or Path(f"experiment-{file_name(experiment)}")
    folder.mkdir(parents=True, exist_ok=True)
    opened = [open_tracker(name, folder, experiment.name) for name in dict.fromkeys((ALWAYS, *trackers))]
    backend = Backend(settings_of(call))
    try:
        with stages(as_json=call.json) as tell:
            report = run_experiment(backend, path, keep=keep, tell=tell)
    finally:
        asyncio.run(backend.close())
    (folder / "report.json").write_text(json.dumps(as_json(report)), encoding="utf-8")
    (folder / "report.html").write_text(as_html(report), encoding="utf-8")
    for tracker in opened:
        with closing(tracker):
            for arm in tracked_runs(report):
                tracker.note(arm)
    if call.json:
        print_json(as_json(report))
    else:
        _print(report)
        print_text(f"{folder / 'report.html'}")


def _print(report: Report) -> None:
    arms = report.result.arms
    measures = list(dict.fromkeys(name for arm in arms for name in arm.measures))
    rows = [
        [
            arm.arm.name,
            *(f"{arm.measures[name].mean:.4f}" if name in arm.measures else "" for name in measures),
            f"{arm.milliseconds['retrieval'].p50:.1f}",
            f"{arm.tokens.get('prompt', 0):.0f}",
        ]
        for arm in arms
    ]
    print_text(f"{report.experiment.name}: {arms[0].questions:,} questions of {report.question_set}")
    print_table(["ARM", *measures, "MS P50", "PROMPT"], rows)
    for one in report.result.comparisons:
        found = one.measures.get(one.by)
        if found and found.interval and found.p is not None:
            print_text(
                f"{one.b}: {one.by} {found.difference:+.4f} ({found.interval.low:+.4f} to {found.interval.high:+.4f}), "
                f"p {found.p:.4f}, n {found.n}"
            )
