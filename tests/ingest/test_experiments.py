"""A grid over a real store: what is tried, what comes of it, what is left behind, and that the page holds still."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from indexes.errors import ChangeRequest
from ingest import intake
from ingest.experiments import Report, read_experiment, run_experiment
from ingest.reports import as_html, as_json, tracked_runs
from ingest.trackers import TRACKERS, TrackedRun, open_tracker
from rag.backend import Backend
from rag.catalog import stores
from rag.catalog.records import PageRequest
from rag.evaluation.comparing import Changed
from tests.backends import add_text, open_backend, toy_settings, wait_until_idle
from tests.fakes import counting_llm

HOSTILE = "<script>alert('x')</script> & \"quotes\""
QUESTIONS = [
    {"id": "boat", "question": "When does the boat leave?", "labels": [{"document": "b.md", "text": "on Mondays"}]},
    {"id": "fee", "question": f"How high is the fee? {HOSTILE}", "labels": [{"document": "f.md"}]},
    {"id": "lamp", "question": "How long does the lamp burn?", "labels": [{"text": "nine evenings"}]},
]
EXPERIMENT = """
name = "tiny grid"
vector_store = "shop"
questions = "questions.jsonl"
measures = ["nDCG@10", "RR@10"]

[settings]
candidates = 5
model = "counted"

[grid]
chunk_tokens = [32, 64]
mode = ["hybrid", "keyword"]
temperature = [0, 1.0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("experiment")
    (made / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in QUESTIONS))
    (made / "grid.toml").write_text(EXPERIMENT)
    return made


def settings(folder: Path) -> Any:
    return toy_settings(folder / "data", retrieval__min_relevance=0.0).model_copy(
        update={"models": {"counted": counting_llm.ALIAS}}
    )


def store_names(backend: Backend) -> set[str]:
    with backend.database.read() as connection:
        return {store.name for store in stores.list_stores(connection, backend.caller, PageRequest(limit=100)).rows}


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    with open_backend(settings(folder)) as backend:
        made = intake.create_store(backend, "shop")
        add_text(
            backend, made, "b.md", "# Boats\n\nThe boat to Norway leaves on Mondays. " + "It carries parcels. " * 9
        )
        add_text(backend, made, "f.md", "# Fees\n\nThe fee is forty crowns. " + "Pay it at the desk. " * 9)
        add_text(backend, made, "l.md", "# Lamps\n\nA lamp burns for nine evenings. " + "Charge it for two hours. " * 9)
        wait_until_idle(backend)
    told: list[tuple[str, int, int]] = []
    counting_llm.ASKED.clear()
    with open_backend(settings(folder), jobs=False) as backend:
        first = run_experiment(backend, folder / "grid.toml", keep=False, tell=lambda *stage: told.append(stage))
        assert store_names(backend) == {"shop"}
        # Every arm asks anew, except that hybrid and keyword may have packed the same.
        asked = len(counting_llm.ASKED)
        assert 4 * len(QUESTIONS) <= asked <= 8 * len(QUESTIONS)
    assert {stage for stage, _, _ in told} == {"ingest 32", "ingest 64", "questions"}
    assert ("ingest 64", 3, 3) in told
    return first


def test_every_combination_is_an_arm_in_order(report: Report) -> None:
    names = [arm.arm.name for arm in report.result.arms]
    assert len(names) == len(set(names)) == 8
    assert names[0] == "chunk_tokens 32, mode hybrid, temperature 0"
    assert names[-1] == "chunk_tokens 64, mode keyword, temperature 1.0"
    assert report.settings[-1] == {
        "candidates": 5,
        "model": "counted",
        "chunk_tokens": 64,
        "mode": "keyword",
        "temperature": 1.0,
    }
    assert len(report.result.comparisons) == 7
    assert {one.a for one in report.result.comparisons} == {names[0]}
    assert report.failed_documents == {}
    for arm in report.result.arms:
        assert arm.measures["RR@10"].n == 3
        assert arm.tokens["completion"] == 7
    split, whole = report.values[0]["span_precision"], report.values[4]["span_precision"]
    assert split.keys() == whole.keys() == {"boat", "lamp"}


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_and_runs_nothing(report: Report) -> None:
    html = as_html(report)
    page = Page()
    page.feed(html)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert names.count("svg") >= 3
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "data"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import", html)
    text = "".join(page.text)
    for arm in report.result.arms:
        assert arm.arm.name in text
        assert f"{arm.measures['nDCG@10'].mean:.4f}" in text
    changed = [one for comparison in report.result.comparisons for one in (*comparison.improved, *comparison.worsened)]
    assert all(one.question in text for one in changed)


def test_the_page_shows_what_would_harm(report: Report) -> None:
    harmful = Changed("fee", QUESTIONS[1]["question"], 1.0, 0.0)
    first, *others = report.result.comparisons
    result = replace(report.result, comparisons=(replace(first, worsened=(harmful,)), *others))
    page = Page()
    page.feed(as_html(replace(report, result=result)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in "".join(page.text)


def test_the_json_has_every_question(report: Report) -> None:
    told = json.loads(json.dumps(as_json(report)))
    assert told["values"][0]["RR@10"].keys() == {"boat", "fee", "lamp"}
    assert told["result"]["arms"][0]["arm"]["candidates"] == 5


HEAD = 'name = "a"\nvector_store = "s"\nquestions = "q"\n[grid]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name =", "Invalid value"),
        ('name = "a"', "vector_store: Field required"),
        ('name = "a/../b"\nvector_store = "s"\nquestions = "q"', "name: "),
        (HEAD + 'modes = ["dense"]', "no setting 'modes'"),
        (HEAD + 'mode = ["dens"]', "the setting mode: "),
        (HEAD + "mode = []", "grid.mode: "),
        (
            'name = "a"\nvector_store = "s"\nquestions = "q"\n[grid]\nchunk_tokens = ["64"]',
            "the setting chunk_tokens: ",
        ),
        (HEAD + f"depth = {list(range(1, 202))}", "201 combinations"),
    ],
)
def test_a_bad_experiment_is_told_before_anything_is_done(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(ChangeRequest, match=re.escape(said)) as caught:
        read_experiment(tmp_path / "e.toml")
    assert caught.value.code == "bad_experiment"


# ---- trackers --------------------------------------------------------------------------------------------------------

RUNS = [
    TrackedRun(
        "dense, 0.5", {"mode": "dense", "weight": 0.5, "answers": True}, {"nDCG@10": 0.75, "tokens.prompt": 9.0}
    ),
    TrackedRun("keyword", {"mode": "keyword"}, {"nDCG@10": 0.5}),
]
Noted = list[tuple[str, dict[str, str], dict[str, float]]]


def from_jsonlines(folder: Path) -> Noted:
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert {line["experiment"] for line in lines} == {"grid one"}
    return [(line["run"], {k: str(v) for k, v in line["settings"].items()}, line["figures"]) for line in lines]


def from_mlflow(folder: Path) -> Noted:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("grid one")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    return [(run.info.run_name, dict(run.data.params), _named(run.data.metrics, "nDCG_10")) for run in runs]


def from_wandb(folder: Path) -> Noted:
    from wandb.proto import wandb_internal_pb2

    found: Noted = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        name, config, summary = "", {}, {}
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            name = record.run.display_name or name
            config |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
            summary |= {one.key or one.nested_key[0]: json.loads(one.value_json) for one in record.summary.update}
        summary = {key: value for key, value in summary.items() if not key.startswith("_")}
        found.append((name, {k: str(v) for k, v in config.items() if not k.startswith("_")}, summary))
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's form, behind its header of seven bytes: in blocks of 32 KiB, each piece with a
    checksum, a length and what it is of its record (1 all, 2 the begin, 3 the middle, 4 the end)."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def _named(metrics: dict[str, float], name: str) -> dict[str, float]:
    return {"nDCG@10" if key == name else key: value for key, value in metrics.items()}


class Forgetful:
    """A liar: it notes the first run only."""

    def __init__(self, folder: Path, experiment: str) -> None:
        self._tracker, self._full = open_tracker("jsonlines", folder, experiment), False

    def note(self, run: TrackedRun) -> None:
        if not self._full:
            self._tracker.note(run)
        self._full = True

    def close(self) -> None:
        self._tracker.close()


READERS = {"jsonlines": from_jsonlines, "mlflow": from_mlflow, "wandb": from_wandb, "forgetful": from_jsonlines}


def check(name: str, folder: Path) -> None:
    tracker = open_tracker(name, folder, "grid one")
    for run in RUNS:
        tracker.note(run)
    tracker.close()
    expected = [(run.name, {k: str(v) for k, v in run.settings.items()}, dict(run.figures)) for run in RUNS]
    assert READERS[name](folder) == expected


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_keeps_every_run_whole(name: str, tmp_path: Path) -> None:
    if name != "jsonlines":
        pytest.importorskip(name, reason=f"the extra `{name}` is not installed")
    check(name, tmp_path)


def test_a_tracker_that_forgets_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "forgetful", "tests.ingest.test_experiments:Forgetful")
    with pytest.raises(AssertionError):
        check("forgetful", tmp_path)


def test_runs_are_told_with_everything_that_was_chosen(report: Report) -> None:
    *_, last = tracked_runs(report)
    assert last.settings["temperature"] == 1.0
    assert last.settings["questions"] == "questions.jsonl"
    assert {"nDCG@10", "span_recall", "milliseconds.retrieval.p95", "tokens.prompt"} <= last.figures.keys()
