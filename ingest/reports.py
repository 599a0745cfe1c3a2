"""An experiment's outcome as one HTML page that needs nothing from elsewhere, and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from pydantic import TypeAdapter

from ingest.evaluate import ArmResult
from ingest.experiments import Report
from ingest.trackers import TrackedRun
from rag.evaluation.comparing import Changed, Comparison, Difference

TEMPLATE = Path(__file__).parent / "report.html"
WIDTH, LABELS, ROW = 900, 300, 22
"""In pixels: a plot, its labels, and a row of it."""
_REPORT: TypeAdapter[Report] = TypeAdapter(Report)


def as_json(report: Report) -> dict[str, Any]:
    """Everything, with the values of each question."""
    told: dict[str, Any] = _REPORT.dump_python(report, mode="json")
    return told


def as_html(report: Report) -> str:
    """The page. Whatever a name or a question says is shown, never acted on."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    measures = list(dict.fromkeys(name for arm in report.result.arms for name in arm.measures))
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"Experiment {report.experiment.name}",
        summary=_summary(report),
        notes=list(_notes(report)),
        headings=[*measures, "retrieval p50, ms", "prompt tokens"],
        rows=[_arm_row(arm, measures) for arm in report.result.arms],
        plots=list(_plots(report, measures)),
        comparisons=[_compared(comparison) for comparison in report.result.comparisons],
    )


def tracked_runs(report: Report) -> Iterator[TrackedRun]:
    """Each arm as trackers take it."""
    for arm, settings in zip(report.result.arms, report.settings, strict=True):
        figures = {name: one.mean for name, one in arm.measures.items()}
        for name, spent in arm.milliseconds.items():
            figures |= {f"milliseconds.{name}.p50": spent.p50, f"milliseconds.{name}.p95": spent.p95}
        figures |= {f"tokens.{name}": mean for name, mean in arm.tokens.items()}
        context = {"vector_store": report.experiment.vector_store, "questions": report.question_set}
        yield TrackedRun(arm.arm.name, {**context, **settings}, figures)


# ---- words and tables ------------------------------------------------------------------------------------------------


def _summary(report: Report) -> str:
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.made_at))
    split = f", split {report.experiment.split}" if report.experiment.split else ""
    first = report.result.arms[0]
    return (
        f"{len(report.result.arms)} arms over {report.experiment.vector_store!r}, {first.questions:,} questions of "
        f"{report.question_set}{split}; made {made}. Every arm is compared with the first one."
    )


def _notes(report: Report) -> Iterator[str]:
    for name, number in report.failed_documents.items():
        yield f"{number:,} documents failed in the scratch store {name!r}: its arms are the worse for it."
    for arm in report.result.arms:
        if arm.labels_left_out:
            few = ", ".join(arm.first_left_out)
            yield f"{arm.arm.name}: {arm.labels_left_out:,} labels were left out, which name nothing: {few}"


def _arm_row(arm: ArmResult, measures: Sequence[str]) -> list[str]:
    means = [f"{arm.measures[name].mean:.4f}" if name in arm.measures else "" for name in measures]
    return [arm.arm.name, *means, f"{arm.milliseconds['retrieval'].p50:.1f}", f"{arm.tokens.get('prompt', 0):,.0f}"]


def _compared(comparison: Comparison) -> Mapping[str, Any]:
    lists = (("better", comparison.improved), ("worse", comparison.worsened))
    return {
        "title": f"{comparison.b} against {comparison.a}",
        "rows": [_difference_row(name, one) for name, one in comparison.measures.items()],
        "changed": [
            (
                f"{getattr(comparison.measures[comparison.by], what):,} questions got {what} by {comparison.by}",
                [_changed_row(one) for one in changed],
            )
            for what, changed in lists
            if changed
        ],
    }


def _difference_row(name: str, one: Difference) -> list[str]:
    interval = f"{one.interval.low:+.4f} to {one.interval.high:+.4f}" if one.interval else ""
    p, detectable = ("" if value is None else f"{value:.4f}" for value in (one.p, one.detectable))
    means = f"{one.a:.4f}", f"{one.b:.4f}", f"{one.difference:+.4f}"
    return [name, *means, interval, p, detectable, str(one.n), str(one.better), str(one.worse)]


def _changed_row(one: Changed) -> list[str]:
    return [one.question[:300], one.id, f"{one.a:.3f}", f"{one.b:.3f}"]


# ---- plots -----------------------------------------------------------------------------------------------------------


@dataclass
class _Plot:
    title: str
    note: str
    height: int
    width: int = WIDTH
    lines: list[dict[str, Any]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.lines.append({"x1": round(x1, 1), "y1": y1, "x2": round(x2, 1), "y2": y2, "kind": kind})

    def bar(self, x: float, y: float, width: float, height: float, kind: str, title: str) -> None:
        place = {"x": round(x, 1), "y": round(y, 1), "width": round(width, 1), "height": round(height, 1)}
        self.bars.append({**place, "kind": kind, "title": title})

    def text(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        self.texts.append({"x": round(x, 1), "y": y, "text": text, "anchor": anchor})


def _plots(report: Report, measures: Sequence[str]) -> Iterator[_Plot]:
    for measure in measures:
        yield _means(report.result.arms, measure)
    for measure in measures:
        compared = [one for one in report.result.comparisons if measure in one.measures]
        if compared:
            yield _forest(compared, measure)
    for place, comparison in enumerate(report.result.comparisons, 1):
        if comparison.by:
            yield _by_question(report, place, comparison)


def _means(arms: Sequence[ArmResult], measure: str) -> _Plot:
    """A bar for each arm."""
    plot = _Plot(measure, "The mean over the questions that have it.", ROW * len(arms) + 10)
    means = [arm.measures[measure].mean if measure in arm.measures else 0.0 for arm in arms]
    most = max([*means, 1e-9])
    for row, (arm, mean) in enumerate(zip(arms, means, strict=True)):
        y, length = row * ROW, (WIDTH - LABELS - 80) * max(mean, 0.0) / most
        plot.text(LABELS - 8, y + 15, arm.arm.name[:45], "end")
        plot.bar(LABELS, y + 4, length, ROW - 8, "even", f"{arm.arm.name}: {mean:.4f}")
        plot.text(LABELS + length + 6, y + 15, f"{mean:.4f}")
    return plot


def _forest(comparisons: Sequence[Comparison], measure: str) -> _Plot:
    """The difference of each arm to the first one, with its interval, about a line at 0."""
    note = "The difference to the first arm, with its 95 % interval (bias-corrected and accelerated bootstrap)."
    plot = _Plot(f"{measure}: change", note, ROW * len(comparisons) + 10)
    rows = [comparison.measures[measure] for comparison in comparisons]
    ends = [abs(end) for one in rows for end in ((one.interval.low, one.interval.high) if one.interval else (0.0,))]
    middle, scale = LABELS + (WIDTH - LABELS) / 2, (WIDTH - LABELS - 160) / 2 / max([*ends, 1e-9])
    plot.line(middle, 0, middle, plot.height, "axis")
    for row, (comparison, one) in enumerate(zip(comparisons, rows, strict=True)):
        y = row * ROW + ROW // 2
        plot.text(LABELS - 8, y + 4, comparison.b[:45], "end")
        if one.interval:
            plot.line(middle + scale * one.interval.low, y, middle + scale * one.interval.high, y, "range")
        kind = _kind(one)
        plot.bar(middle + scale * one.difference - 4, y - 4, 8, 8, kind, f"{comparison.b}: {one.difference:+.4f}")
        plot.text(WIDTH - 60, y + 4, f"{one.difference:+.4f}")
    return plot


def _kind(one: Difference) -> str:
    """`better` or `worse` where the interval leaves out 0."""
    if one.interval is None or one.interval.low <= 0 <= one.interval.high:
        return "even"
    return "better" if (one.difference > 0) != one.lower_is_better else "worse"


def _by_question(report: Report, place: int, comparison: Comparison) -> _Plot:
    """A bar for each question, by the size of its change."""
    before, after = (report.values[at][comparison.by] for at in (0, place))
    changes = sorted(((after[id_] - before[id_], id_) for id_ in before if id_ in after), reverse=True)
    most = max([abs(change) for change, _ in changes] + [1e-9])
    note = f"The change of {comparison.by} question by question, from the largest gain to the largest loss."
    plot = _Plot(f"{comparison.b}: every question", note, 160)
    width = WIDTH / max(len(changes), 1)
    plot.line(0, 80, WIDTH, 80, "axis")
    for number, (change, id_) in enumerate(changes):
        height = 75 * abs(change) / most
        top = 80 - height if change > 0 else 80
        kind = "better" if (change > 0) != comparison.measures[comparison.by].lower_is_better else "worse"
        plot.bar(number * width, top, max(width - 1, 0.5), height, kind, f"{id_}: {change:+.3f}")
    return plot
