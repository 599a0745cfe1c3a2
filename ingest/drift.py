"""Watching a store from day to day: what was asked, found and said on a day, against the days before it.

Each day (UTC) that is over is looked at once, by whoever runs the jobs: the catalog's row for it is taken first, and
finished with what the day came to in one transaction. A day whose worker died is taken over; nothing in between leaves
anything behind. An alarm stands in what the day came to, in the log, and among the metrics.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from indexes.errors import ChangeRequest, RagError
from ingest.pipeline import Stopped
from rag import question_sets
from rag.access import Caller
from rag.activity import Unnoted
from rag.backend import Backend
from rag.catalog import drift, generations, stores
from rag.catalog.question_sets import QuestionSet
from rag.catalog.records import DAY, Store
from rag.evaluation.drift import (
    MOST_VECTORS,
    compare_canaries,
    histogram,
    low_score,
    share_signal,
    vector_signals,
)
from rag.evaluation.feedback import thumb_of
from rag.retrieve import SearchOptions, retrieve

LOOK_EVERY = 60.0
"""Seconds between two looks for a day that is due, when there was none."""
RETRY_SECONDS = 600.0
"""Before a day that could not be looked at is tried again."""
MOST_TRACES = 20_000
"""Traces of one store and day that are counted, the newest ones."""
HITS = 10
"""Documents of a canary that are compared."""
MOST_CANARIES = 500

log = logging.getLogger(__name__)


class Watch:
    """Looks at what is due, as a step of the work in the background. One to a process."""

    def __init__(self, backend: Backend, worker: Callable[[], int], stopping: Callable[[], bool]) -> None:
        self._backend = backend
        self._worker = worker
        self._stopping = stopping
        self._looked = float("-inf")
        self._failed: dict[tuple[int, int], float] = {}
        """Days that could not be looked at, and when it was tried: the others' must not wait for them."""

    def step(self) -> bool:
        """Look at a day that is over, of one store. False when none is due."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return False
        worker = self._worker()
        with self._backend.database.read() as connection:
            found = drift.due(connection, int(time.time()) // DAY, worker)
        found = [one for one in found if now - self._failed.get(one, float("-inf")) > RETRY_SECONDS]
        if not found:
            self._looked = now
            return False
        with self._backend.database.write() as connection:
            taken = drift.claim(connection, *found[0], worker)
        if taken:
            self._look_at(*found[0], worker)
        return taken

    def _look_at(self, store_id: int, day: int, worker: int) -> None:
        with self._backend.database.read() as connection:
            store = stores.get_store_by_id(connection, store_id)
        if store is None:
            return
        try:
            look_at(self._backend.for_caller(Caller(store.tenant)), store, day, worker, self._stopping)
            self._failed.pop((store_id, day), None)
        except (RagError, Stopped):  # of an embedder out of reach, say: no crash, so it is tried again for as long
            self._failed[store_id, day] = time.monotonic()
            with self._backend.database.write() as connection:
                drift.let_go(connection, store_id, day, worker)
            raise


def look_at(
    backend: Backend, store: Store, day: int, worker: int, stopping: Callable[[], bool] = lambda: False
) -> None:
    """Work out what a worker's day came to, and write it down. Where it lost the day meanwhile, nothing is told."""
    yesterday = day == int(time.time()) // DAY - 1
    body = _worked_out(backend, store, day, replay(backend, store, stopping) if yesterday else None)
    with backend.database.write() as connection:
        mine = drift.finish(connection, store.id, day, worker, body, backend.settings.drift.days)
    if mine and body["alarms"]:
        log.warning("the vector store %s drifted on %s: %s", store.public_id, date_of(day), ", ".join(body["alarms"]))


def look(backend: Backend, store: Store) -> dict[str, Any]:
    """What today comes to so far. Nothing is written down."""
    backend.traces.flush()
    return _worked_out(backend, store, int(time.time()) // DAY, replay(backend, store))


def date_of(day: int) -> str:
    """A day since 1970 as 2026-11-24."""
    return time.strftime("%Y-%m-%d", time.gmtime(day * DAY))


def _worked_out(backend: Backend, store: Store, day: int, replayed: Mapping[str, Any] | None) -> dict[str, Any]:
    with backend.database.read() as connection:
        before = [body["counts"] for body in drift.days(connection, store.id, *_days_before(day)).values()]
    return judge(before, count(backend, store, day), _vectors_moved(backend, store, day), replayed)


def _days_before(day: int) -> tuple[int, int]:
    return day - drift.DAYS_BEFORE, day - 1


def judge(
    before: Sequence[Mapping[str, Any]],
    counted: Mapping[str, Any],
    moved: Sequence[Mapping[str, Any]],
    replayed: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a day came to, from its own counts and those of the days before it."""

    def share(name: str, part: str, whole: str) -> dict[str, Any]:
        earlier = sum(day[part] for day in before), sum(day[whole] for day in before)
        return share_signal(name, earlier, (counted[part], counted[whole])).to_json()

    relevance = [sum(column) for column in zip(*(day["relevance"] for day in before), strict=True)]
    signals = [
        *moved,
        low_score(relevance, counted["relevance"]).to_json(),
        share("abstention", "abstained", "answers"),
        share("ungrounded", "ungrounded", "checked"),
        share("feedback", "negative", "feedback"),
    ]
    alarms = [signal["name"] for signal in signals if signal["alarm"]]
    if replayed is not None and replayed["alarm"]:
        alarms.append("canaries")
    return {"counts": dict(counted), "signals": signals, "canaries": replayed, "alarms": alarms}


def count(backend: Backend, store: Store, day: int) -> dict[str, Any]:
    """What the traces and the feedback of a day come to.

    `answers` counts answers and `abstained` those that say that nothing was found; `checked` those whose sentences were
    looked at, and `ungrounded` those of them with one that does not stand on its passages; `feedback` counts thumbs,
    and `negative` those down. `relevance` is a histogram of the best hits'.
    """
    counts = dict.fromkeys(("questions", "answers", "abstained", "checked", "ungrounded"), 0)
    best: list[float] = []
    with backend.database.read() as connection:
        for body in drift.traces_of(connection, store, day, MOST_TRACES):
            _tally(counts, body)
            best.append(max((hit["relevance"] for hit in body["retrieved"]), default=0.0))
        thumbs = [thumb_of(body) for body in drift.feedback_of(connection, store, day)]
    given = {"feedback": len(thumbs) - thumbs.count(None), "negative": thumbs.count(False)}
    return {**counts, **given, "relevance": histogram(best)}


def _tally(counts: dict[str, int], body: Mapping[str, Any]) -> None:
    counts["questions"] += 1
    if body["answer"] is not None:
        counts["answers"] += 1
        counts["abstained"] += not body["grounded"]
    found = body.get("groundedness")
    if found is not None and found["sentences"]:
        counts["checked"] += 1
        counts["ungrounded"] += found["unsupported"] > 0


def _vectors_moved(backend: Backend, store: Store, day: int) -> list[dict[str, Any]]:
    with backend.database.read() as connection:
        space = generations.live_generation(connection, store.id).space_id
        before = drift.query_vectors(connection, store.id, space, *_days_before(day), MOST_VECTORS)
        asked = drift.query_vectors(connection, store.id, space, day, day, MOST_VECTORS)
    return [signal.to_json() for signal in vector_signals(before, asked, seed=day)]


# ---- canaries --------------------------------------------------------------------------------------------------------


def freeze(backend: Backend, store: Store, name: str) -> None:
    """Let the questions of a set be the canaries of a store, with what they find now.

    Raises NotThere, and ChangeRequest (`too_many_questions`).
    """
    question_set = question_sets.find(backend, name)
    if question_set.size > MOST_CANARIES:
        raise ChangeRequest(
            f"The question set {name!r} has {question_set.size:,} questions, more than the {MOST_CANARIES} that are "
            "asked again each day. Import a smaller one.",
            code="too_many_questions",
            param="question_set",
        )
    hits = _asked(backend, store, _texts(backend, question_set))
    with backend.database.write() as connection:
        drift.freeze(connection, store, question_set, hits)


def thaw(backend: Backend, store: Store) -> None:
    """Watch without canaries."""
    with backend.database.write() as connection:
        drift.thaw(connection, store)


def replay(backend: Backend, store: Store, stopping: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
    """The canaries asked again, None where there are none. A store that has expired takes no questions."""
    with backend.database.read() as connection:
        frozen = drift.canaries(connection, store)
    if frozen is None or store.expired:
        return None
    texts = _texts(backend, frozen.question_set)
    now = _asked(backend, store, texts, stopping)
    found = compare_canaries(frozen.hits, now, backend.settings.retrieval.min_relevance)
    worst = [texts[id_] for id_ in found.worst]
    return {"question_set": frozen.name, **found.to_json(), "worst": worst}


def _texts(backend: Backend, question_set: QuestionSet) -> dict[str, str]:
    return {one.id: one.text for one in question_sets.read(backend, question_set)}


def _asked(
    backend: Backend, store: Store, questions: Mapping[str, str], stopping: Callable[[], bool] = lambda: False
) -> dict[str, dict[int, float]]:
    """The documents that each question finds for one who sees all, by their best chunk, with the relevance of that.
    It is no use of the store."""
    everybody = backend.for_caller(Caller(store.tenant))
    everybody.activity = Unnoted()
    found: dict[str, dict[int, float]] = {}
    for id_, question in questions.items():
        if stopping():
            raise Stopped
        best: dict[int, float] = {}
        for hit in retrieve(everybody, [store], question, SearchOptions(limit=3 * HITS)).candidates:
            best.setdefault(hit.document_id, round(hit.relevance, 6))
        found[id_] = dict(list(best.items())[:HITS])
    return found
