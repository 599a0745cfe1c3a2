"""Experiments: every combination of some settings, asked a question set, and told in a report.

An experiment is a TOML or JSON file:

    name = "fusion"
    vector_store = "manual"
    questions = "helpdesk@2"            # a question set, or a file of JSON lines beside this one
    split = "dev"

    [settings]                          # of every arm
    candidates = 50

    [grid]                              # each combination is an arm; the first one is what others are compared with
    mode = ["hybrid", "dense"]
    chunk_tokens = [128, 254]

Settings are the fields of an `Arm` and of a `Build`: arms with one of the latter search a scratch store that the real
pipeline fills. What arms share is made once: a scratch store, a retrieval, and (for a month, in the data folder) an
answer.
"""

from __future__ import annotations

import itertools
import json
import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from indexes.errors import ChangeRequest
from ingest.answers import AnswerCache
from ingest.arms import MEASURES, Arm, Strict
from ingest.evaluate import Outcome, Plan, Result, result_of, run
from ingest.intake import delete_store
from ingest.runner import Runner
from ingest.scratch import fill_scratch
from rag import question_sets
from rag.backend import Backend
from rag.catalog import stores
from rag.catalog.records import Store
from rag.evaluation.comparing import Values
from rag.evaluation.questions import DEV_SHARE, Question, Split, read_lines

MOST_ARMS = 200
ANSWERING = frozenset({"prompt", "model", "temperature", "top_p", "max_tokens"})
"""Settings that matter only for answers: an experiment with one of them asks for answers, unless it says otherwise."""

Tell = Callable[[str, int, int], None]
"""Told the stage (`ingest NAME`, `questions`), how much of it is done and how much there is."""
Setting = str | int | float | bool


class Build(Strict):
    """What takes a scratch store: another embedder, another size of chunks, or both."""

    embedder: str | None = None
    chunk_tokens: Annotated[int, Field(ge=1)] | None = None
    chunk_overlap_tokens: Annotated[int, Field(ge=0)] | None = None

    @property
    def chunking(self) -> dict[str, Any] | None:
        """As a vector store has it, None where nothing is said of it."""
        if self.chunk_tokens is None:
            return None
        sizes = {"max_chunk_size_tokens": self.chunk_tokens, "chunk_overlap_tokens": self.chunk_overlap_tokens or 0}
        return {"type": "static", "static": sizes}


class Experiment(Strict):
    """An experiment as its file says it."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .-]+$")]
    vector_store: str
    questions: str
    split: Split | None = None
    measures: Annotated[list[str], Field(min_length=1, default_factory=lambda: list(MEASURES))]
    answers: bool | None = None
    settings: dict[str, Setting] = Field(default_factory=dict)
    grid: dict[str, Annotated[list[Setting], Field(min_length=1)]] = Field(default_factory=dict)

    def combinations(self) -> list[dict[str, Setting]]:
        """What each arm is set to by the grid, in its order: the last setting changes fastest."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def wants_answers(self) -> bool:
        """Whether models are to be asked."""
        return bool(ANSWERING & {*self.settings, *self.grid}) if self.answers is None else self.answers


@dataclass(frozen=True)
class Report:
    """An experiment and what came of it."""

    experiment: Experiment
    question_set: str
    made_at: int
    result: Result
    settings: Sequence[Mapping[str, Setting]]
    """Of each arm, everything that was chosen for it."""
    values: Sequence[Values]
    """Of each arm, by measure and question."""
    failed_documents: Mapping[str, int]
    """Of scratch stores that lack some: arms that search one are the worse for it."""


@dataclass(frozen=True)
class _Planned:
    arm: Arm
    build: Build
    settings: Mapping[str, Setting]


def read_experiment(path: Path) -> Experiment:
    """The experiment in a file. Raises ChangeRequest (`bad_experiment`) that says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        read = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        experiment = Experiment.model_validate(read)
    except OSError as error:
        raise _bad(path, f"it cannot be read ({error.strerror})") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise _bad(path, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    except ValueError as error:
        raise _bad(path, str(error)) from error
    _planned(path, experiment)
    return experiment


def run_experiment(backend: Backend, path: Path, *, keep: bool, tell: Tell) -> Report:
    """Carry out the experiment in a file. Scratch stores are deleted at the end, unless they are to be kept.

    Raises as `read_experiment`, `run` and `fill_scratch` do, and NotThere for what the file names that is not there.
    """
    experiment = read_experiment(path)
    planned = _planned(path, experiment)
    store = backend.find_store(experiment.vector_store)
    called, questions = _questions(backend, path, experiment)
    for one in planned:
        backend.models.get(one.arm.model)
    plan = Plan(experiment.measures, answers=experiment.wants_answers())
    cache = AnswerCache(backend.folder / "answers")
    built = {Build(): store}
    try:
        failed = _build(backend, store, planned, built, tell)
        arms = [(one.arm, built[one.build]) for one in planned]
        outcomes = run(backend, questions, arms, plan, lambda done, total: tell("questions", done, total), cache)
    finally:
        for made in list(built.values())[1:]:
            if not keep:
                delete_store(backend, made)
    return _report(backend, experiment, called, questions, planned, outcomes, failed)


def _report(
    backend: Backend,
    experiment: Experiment,
    called: str,
    questions: Sequence[Question],
    planned: Sequence[_Planned],
    outcomes: Sequence[Outcome],
    failed: Mapping[str, int],
) -> Report:
    return Report(
        experiment=experiment,
        question_set=called,
        made_at=int(time.time()),
        result=result_of(backend, questions, outcomes, gated=False),
        settings=[one.settings for one in planned],
        values=[outcome.values for outcome in outcomes],
        failed_documents=failed,
    )


def _planned(path: Path, experiment: Experiment) -> list[_Planned]:
    known = {*Arm.model_fields, *Build.model_fields} - {"name", "vector_store_id"}
    unknown = sorted({*experiment.settings, *experiment.grid} - known)
    if unknown:
        raise _bad(path, f"there is no setting {unknown[0]!r}. Known: {', '.join(sorted(known))}")
    combinations = experiment.combinations()
    if len(combinations) > MOST_ARMS:
        raise _bad(path, f"its grid has {len(combinations):,} combinations, more than {MOST_ARMS}")
    return [_one(path, {**experiment.settings, **chosen}, chosen) for chosen in combinations]


def _one(path: Path, settings: Mapping[str, Setting], chosen: Mapping[str, Setting]) -> _Planned:
    name = ", ".join(f"{name} {value}" for name, value in chosen.items()) or "as set up"
    built = {key: value for key, value in settings.items() if key in Build.model_fields}
    asked = {key: value for key, value in settings.items() if key not in built}
    try:
        return _Planned(Arm.model_validate({**asked, "name": name[:100]}), Build.model_validate(built), settings)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise _bad(path, f"the setting {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def _questions(backend: Backend, path: Path, experiment: Experiment) -> tuple[str, list[Question]]:
    """What the questions are called, and those that anything is known of."""
    file = path.parent / experiment.questions
    if file.is_file():
        called, found = experiment.questions, read_lines(file.read_bytes().split(b"\n"), DEV_SHARE)
    else:
        kept = question_sets.find(backend, experiment.questions)
        called, found = f"{kept.name}@{kept.version}", question_sets.read(backend, kept)
    wanted = [one for one in found if one.judged and experiment.split in (None, one.split)]
    if not wanted:
        raise ChangeRequest(
            f"{called} has no judged question in the split {experiment.split!r}.", code="empty_question_set"
        )
    return called, wanted


def _build(
    backend: Backend,
    store: Store,
    planned: Sequence[_Planned],
    built: dict[Build, Store],
    tell: Tell,
) -> dict[str, int]:
    """Fill the scratch stores that are wanted; the documents that failed in each, by its name."""
    wanted = [build for build in dict.fromkeys(one.build for one in planned) if build not in built]
    if not wanted:
        return {}
    runner = Runner(backend)
    try:
        for build in wanted:
            stage = " ".join(["ingest", *(str(part) for _, part in build if part is not None)])
            told = partial(tell, stage)
            built[build] = fill_scratch(backend, store, embedder=build.embedder, chunking=build.chunking, tell=told)
    finally:
        runner.close()
    with backend.database.read() as connection:
        made = {built[build].id: built[build].name for build in wanted}
        counts = stores.count_documents(connection, backend.caller, list(made))
    return {made[id_]: each.failed for id_, each in counts.items() if each.failed}


def file_name(experiment: Experiment) -> str:
    """The experiment's name as one of files."""
    return re.sub(r"[^\w.-]+", "-", experiment.name)


def _bad(path: Path, what: str) -> ChangeRequest:
    return ChangeRequest(f"The experiment {path} cannot be run: {what}.", code="bad_experiment")
