"""A question set asked of several arms, and what came of it.

An arm is one way of answering: settings of retrieval, packing and model over a vector store. Arms are asked each
question in turn, so that what else the machine does falls on all of them alike, and what several of them share is
retrieved once.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from indexes.errors import ChangeRequest, RagError
from ingest.answers import AnswerCache
from ingest.arms import MEASURES, Arm
from ingest.labels import LeftOut, resolve
from rag.answer import Answer
from rag.answer import answer as answer_from
from rag.ask import Prepared, prepare
from rag.backend import Backend, QuestionVectors
from rag.catalog.records import Store
from rag.evaluation import contexts, spans
from rag.evaluation.answers import ANSWER_MEASURES
from rag.evaluation.comparing import Comparison, Values, compare
from rag.evaluation.gate import Verdict, verdict
from rag.evaluation.questions import Question
from rag.evaluation.rankings import measure
from rag.models.registry import ModelRegistry
from rag.retrieve import QUERY_LIMIT, Retrieval, SearchOptions, retrieve

DOCUMENTS = 100
"""Documents of a ranking, at most."""
BLOCK = 16
"""Questions that are retrieved for before they are answered together."""
AT_ONCE = 4
"""Answers that are asked of one model at the same time."""
Progress = Callable[[int, int], None]
"""Told how many questions are done, and how many there are."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    measures: Sequence[str] = MEASURES
    contexts: bool = True
    """Pack a context for each question; else search alone, with as many hits as the installation gives."""
    answers: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of the questions under one arm."""

    arm: Arm
    values: Values
    """The measures of rankings first, each by question."""
    rankings: Mapping[str, Sequence[int]]
    """Document numbers by question, the best first."""
    milliseconds: Mapping[str, Sequence[float]]
    """Of each question: `retrieval`, `retrieval_beyond_embedding`, and where they were made `context`, `answer`."""
    tokens: Mapping[str, Sequence[int]]
    """Of each question: `embedded`, and where they were made `prompt`, `completion`."""
    left_out: LeftOut


@dataclass(frozen=True)
class Mean:
    """The mean of a measure over the `n` questions that have it."""

    mean: float
    n: int


@dataclass(frozen=True)
class Quantiles:
    """In milliseconds."""

    p50: float
    p95: float


@dataclass(frozen=True)
class ArmResult:
    """One arm in figures; `tokens` are means per question. `labels_left_out` name nothing in its vector store; the
    first few are listed."""

    arm: Arm
    questions: int
    measures: Mapping[str, Mean]
    milliseconds: Mapping[str, Quantiles]
    tokens: Mapping[str, float]
    labels_left_out: int
    first_left_out: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """All arms, and each but the first against it; `verdicts` are the gate's on these, in their order."""

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]


# ---- asking ----------------------------------------------------------------------------------------------------------


def run(
    backend: Backend,
    questions: Sequence[Question],
    arms: Sequence[tuple[Arm, Store]],
    plan: Plan = Plan(),
    progress: Progress = lambda _done, _total: None,
    cache: AnswerCache | None = None,
) -> list[Outcome]:
    """Ask every arm, each over its store, every question.

    Raises ChangeRequest (`unknown_documents`) where none of the labels names anything in an arm's store, and
    (`bad_question`) for a question that cannot be asked; and what the models raise.
    """
    ways: dict[tuple[int, SearchOptions], _Way] = {}
    tellers: list[_Teller] = []
    for arm, store in arms:
        options = replace(arm.search(), min_relevance=None)
        key = store.id, options
        if key not in ways:
            ways[key] = _Way(backend, store, options, questions, plan)
        tellers.append(_Teller(arm, ways[key], plan))
    with _answering(backend, plan, cache) as answering:
        asked: list[_Asked] = []
        for done, question in enumerate(questions, 1):
            asked += _prepared(plan, ways, tellers, question)
            if done % BLOCK == 0 or done == len(questions):
                if answering is not None:
                    answering.ask_all(asked)
                asked = []
            progress(done, len(questions))
    return [teller.outcome() for teller in tellers]


def rank_documents(backend: Backend, store: Store, question: str, options: SearchOptions, most: int) -> list[int]:
    """Document numbers by their best chunk, best first: chunks are fetched until there are `most` or no more come; as
    many as `options.depth` says, where it does."""
    return list(dict.fromkeys(number for number, _, _ in _ranked(backend, store, question, options, most)))[:most]


def _ranked(
    backend: Backend, store: Store, question: str, options: SearchOptions, most: int
) -> list[tuple[int, int, int]]:
    """The chunks of `rank_documents`: document, start and end of each."""
    limit = options.depth or most
    while True:
        deeper = replace(options, limit=limit, depth=limit)
        found = retrieve(backend, [store], question, deeper).candidates
        chunks = [(candidate.document_id, candidate.start, candidate.end) for candidate in found]
        if options.depth or len({document for document, _, _ in chunks}) >= most or len(chunks) < limit:
            return chunks
        limit *= 2


class _Way:
    """One way of retrieving over one store, with what comes of it whatever the prompt or the model."""

    def __init__(
        self, backend: Backend, store: Store, options: SearchOptions, questions: Sequence[Question], plan: Plan
    ) -> None:
        # Questions that another arm embedded are embedded again, or it would pay for all.
        self.backend = backend.for_caller(backend.caller)
        self.backend.question_vectors = QuestionVectors(backend.meters)
        self.store = store
        self.judged, self.left_out = resolve(backend, store, questions)
        self.rankings: dict[str, list[int]] = {}
        self.values: dict[str, dict[str, float]] = defaultdict(dict)
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        self.embedded: list[int] = []
        self._options = options
        self._limit = options.limit or (backend.settings.context.candidates if plan.contexts else None)
        retrieve(self.backend, [store], "Warm up: open the view, load the model.", options)

    def ask(self, question: Question) -> Retrieval:
        """Search once as a user does, timed, and once deeper for the ranking."""
        started = time.perf_counter()
        try:
            found = retrieve(self.backend, [self.store], question.text, replace(self._options, limit=self._limit))
        except ChangeRequest as error:
            raise _about(question, error) from error
        spent = time.perf_counter() - started
        self.milliseconds["retrieval"].append(spent * 1000)
        self.milliseconds["retrieval_beyond_embedding"].append((spent - found.timings.get("embed", 0.0)) * 1000)
        self.embedded.append(self._tokens_embedded(question, found))
        chunks = _ranked(self.backend, self.store, question.text, self._options, DOCUMENTS)
        self.rankings[question.id] = list(dict.fromkeys(document for document, _, _ in chunks))[:DOCUMENTS]
        if wanted := self.judged[question.id].spans:
            _note(self.values, question, spans.overlap(wanted, spans.within(chunks)))
        return found

    def _tokens_embedded(self, question: Question, found: Retrieval) -> int:
        if all(candidate.dense is None for candidate in found.candidates):
            return 0
        tokenizer = self.backend.embedder(found.generations[0]).tokenizer
        return tokenizer.count(question.text[:QUERY_LIMIT])

    def rank_values(self, measures: Sequence[str]) -> Values:
        """The measures of the ranking, by question."""
        run = {id_: [str(number) for number in ranked] for id_, ranked in self.rankings.items()}
        qrels = {
            id_: {str(number): grade for number, grade in judged.grades.items()} for id_, judged in self.judged.items()
        }
        return measure(run, qrels, measures).per_query


@dataclass
class _Teller:
    """What an arm has come to so far, beyond its way of retrieving."""

    arm: Arm
    way: _Way
    plan: Plan
    values: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    tokens: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def packed(self, question: Question, retrieval: Retrieval) -> _Asked:
        """The context of a question, measured."""
        started = time.perf_counter()
        try:
            prepared = prepare(self.way.backend, self.arm.ask(self.way.store, question), retrieval)
        except ChangeRequest as error:
            raise _about(question, error) from error
        self.milliseconds["context"].append((time.perf_counter() - started) * 1000)
        _note(self.values, question, contexts.score(prepared.context, self.way.judged[question.id].spans))
        if not self.plan.answers:
            self.tokens["prompt"].append(prepared.context.ledger.prompt_tokens)
        return _Asked(self, question, prepared)

    def answered(self, question: Question, prepared: Prepared, answer: Answer) -> None:
        """Measure an answer."""
        self.milliseconds["answer"].append(sum(answer.timings.values()) * 1000)
        self.tokens["prompt"].append(answer.usage.prompt_tokens)
        self.tokens["completion"].append(answer.usage.completion_tokens)
        for measured in ANSWER_MEASURES:
            _note(self.values, question, measured(question, prepared.context, answer))

    def outcome(self) -> Outcome:
        """All of it."""
        ranked = self.way.rank_values(self.plan.measures)
        values = {**ranked, **self.way.values, **self.values}
        return Outcome(
            arm=self.arm,
            values={name: found for name, found in values.items() if found},
            rankings=self.way.rankings,
            milliseconds={**self.way.milliseconds, **self.milliseconds},
            tokens={"embedded": self.way.embedded, **self.tokens},
            left_out=self.way.left_out,
        )


@dataclass(frozen=True)
class _Asked:
    teller: _Teller
    question: Question
    prepared: Prepared


def _prepared(plan: Plan, ways: Mapping[Any, _Way], tellers: Sequence[_Teller], question: Question) -> list[_Asked]:
    """A question under every arm, as far as it goes without a model."""
    found = {id(way): way.ask(question) for way in ways.values()}
    return [teller.packed(question, found[id(teller.way)]) for teller in tellers] if plan.contexts else []


def _note(values: dict[str, dict[str, float]], question: Question, scores: Mapping[str, float]) -> None:
    for name, score in scores.items():
        values[name][question.id] = score


def _about(question: Question, error: RagError) -> ChangeRequest:
    return ChangeRequest(f"The question {question.id!r} cannot be asked: {error.message}", code="bad_question")


# ---- answering -------------------------------------------------------------------------------------------------------


def _answering(backend: Backend, plan: Plan, cache: AnswerCache | None) -> AbstractContextManager[_Answering | None]:
    return closing(_Answering(backend, cache)) if plan.answers and plan.contexts else nullcontext()


class _Answering:
    """Asks models from an event loop of its own, with clients of its own: a server's belong to the server's loop."""

    def __init__(self, backend: Backend, cache: AnswerCache | None) -> None:
        self._cache = cache
        self._registry = ModelRegistry(backend.settings.models, default=backend.settings.model)
        self._loop = asyncio.Runner()
        self._places: dict[str, asyncio.Semaphore] = {}

    def ask_all(self, asked: Sequence[_Asked]) -> None:
        """Let every one be answered and measured, in order. Raises what the first one to fail raises."""
        try:
            answers = self._loop.run(self._answers(asked))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        for one, answer in zip(asked, answers, strict=True):
            one.teller.answered(one.question, one.prepared, answer)

    def close(self) -> None:
        """Close the models and the loop."""
        self._loop.run(self._registry.close())
        self._loop.close()

    async def _answers(self, asked: Sequence[_Asked]) -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._answer(one.prepared)) for one in asked]
        return [task.result() for task in tasks]

    async def _answer(self, prepared: Prepared) -> Answer:
        kept = self._cache.get(prepared) if self._cache else None
        if kept is not None:
            return kept
        alias = prepared.alias
        place = self._places.setdefault(alias.name, asyncio.Semaphore(min(AT_ONCE, alias.concurrent)))
        async with place:
            pieces = answer_from(prepared.context, self._registry, alias, prepared.sampling, prepared.abstain)
            *_, said = [piece async for piece in pieces]
        assert isinstance(said, Answer)
        if self._cache:
            self._cache.put(prepared, said)
        return said


# ---- figures ---------------------------------------------------------------------------------------------------------


def result_of(backend: Backend, questions: Sequence[Question], outcomes: Sequence[Outcome], *, gated: bool) -> Result:
    """The figures of all arms, and each but the first compared with it; `gated` says whether the gate has a say."""
    texts = {question.id: question.text for question in questions}
    first, *others = outcomes
    comparisons = tuple(
        compare(texts, (first.arm.name, first.values), (other.arm.name, other.values)) for other in others
    )
    gate = backend.settings.gate
    verdicts = tuple(verdict(gate, one.measures.get(gate.metric or "")) for one in comparisons) if gated else ()
    return Result(tuple(_in_figures(outcome) for outcome in outcomes), comparisons, verdicts)


def _in_figures(outcome: Outcome) -> ArmResult:
    return ArmResult(
        arm=outcome.arm,
        questions=len(outcome.rankings),
        measures={
            name: Mean(sum(values.values()) / len(values), len(values)) for name, values in outcome.values.items()
        },
        milliseconds={
            name: Quantiles(*(round(float(q), 3) for q in np.percentile(spent, [50, 95])))
            for name, spent in outcome.milliseconds.items()
        },
        tokens={name: round(float(np.mean(counts)), 2) for name, counts in outcome.tokens.items()},
        labels_left_out=outcome.left_out.labels,
        first_left_out=outcome.left_out.first,
    )
