"""Swap the embedder of a store under load, and back, and look at every answer.

    python -m tests.campaigns.generations --chunks 5000 --searches 20 --seed 1

A store is filled with the toy embedder of 256 dimensions. While clients search at a fixed rate, and another one
uploads, replaces and deletes documents, a generation with the toy of 384 dimensions is built, the server dies once by
SIGKILL while it is, the generation is promoted, and after a while rolled back. Required:

- no search fails or is empty; only a broken connection, while the server is down, is asked again;
- the dense scores of each answer are those of one generation, worked out here from the texts, and of the one that was
  live when it was asked: none is of two, and none of the old one once the promotion has been answered;
- promotion and rollback are answered within a second each;
- afterwards the dense scores of the documents that nobody touched are those from before, to the bit;
- and, once the others are what they were too and the store has been at rest for some seconds, the ten best hits of each
  question are the same.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from rag.embedders import BUILT_IN
from rag.embedders.toy import ToyEmbedder
from rag.views import CHUNKS_A_SECOND_OF_REST, REST_SECONDS
from tests.campaigns.kills import Server, free_port

STORE = "swapped"
OLD, NEW = "toy-256", "toy-384"
HITS = 10
LEAST = 10
"""Questions between two events, at least."""
LATEST = 1.0
"""Seconds that a promotion may take."""
NEAR = 2e-5
"""How far a dense score may be from what is worked out here, in the last digits of 32 bits."""
CHUNK_TOKENS = 100
TOUCHED = 0.2
"""The share of the documents that are replaced and deleted under way."""


# ---- the corpus ------------------------------------------------------------------------------------------------------


def words_of(seed: int) -> list[str]:
    """Words that share no beginning that a stemmer would cut to."""
    chance = random.Random(seed)
    letters = "bcdfghklmnprtvz"
    return ["".join(chance.choice(letters) + chance.choice("aou") for _ in range(4)) + "x" for _ in range(3_000)]


def text_of(chance: random.Random, words: Sequence[str], chunks: int) -> str:
    """A text that is split into about so many chunks."""
    sentences = []
    for _ in range(chunks * 2):
        chosen = [words[min(int(chance.paretovariate(0.6)) - 1, len(words) - 1)] for _ in range(9)]
        sentences.append(" ".join(chosen).capitalize() + ".")
    return "\n\n".join(sentences) + "\n"


@dataclass
class Corpus:
    """What the store holds at first; the first documents are those that are touched."""

    texts: dict[str, str]
    touched: list[str]
    questions: list[str]

    @classmethod
    def made(cls, chunks: int, seed: int) -> Corpus:
        chance, words = random.Random(seed), words_of(seed)
        sources = [f"{number:05d}.txt" for number in range(max(chunks // 4, 20))]
        texts = {source: text_of(chance, words, 4) for source in sources}
        questions = [" ".join(chance.sample(text_words(texts[source]), 4)) for source in chance.sample(sources, 20)]
        return cls(texts, sources[: round(TOUCHED * len(sources))], questions)


def text_words(text: str) -> list[str]:
    return sorted({word.strip(".").lower() for word in text.split()})


# ---- whose answer it is ----------------------------------------------------------------------------------------------


EMBEDDERS = {name: ToyEmbedder(BUILT_IN[name]) for name in (OLD, NEW)}


@lru_cache(maxsize=50_000)
def vector(embedder: str, text: str) -> Any:
    return EMBEDDERS[embedder].embed_documents([text])[0]


def generations_of(question: str, hits: Sequence[dict[str, Any]]) -> set[str]:
    """The embedders of which all dense scores of an answer may be."""
    fitting = set()
    for name in EMBEDDERS:
        asked = vector(name, question)
        expected = [float(np.dot(vector(name, hit["content"][0]["text"]), asked)) for hit in hits]
        if all(abs(hit["scores"]["dense"] - score) < NEAR for hit, score in zip(hits, expected, strict=True)):
            fitting.add(name)
    return fitting


# ---- clients ---------------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """What all clients know: whether the server is up, and which generation answers since when."""

    url: str
    down: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    outages: int = 0
    live: list[tuple[float, float, str]] = field(default_factory=lambda: [(0.0, 0.0, OLD)])
    """From when on at the earliest, and at the latest, which embedder answers."""

    def may_answer(self, began: float, ended: float) -> set[str]:
        """The embedders that may have answered a request between these moments."""
        flips = list(self.live)
        allowed = set()
        for place, (earliest, _, name) in enumerate(flips):
            over = flips[place + 1][1] if place + 1 < len(flips) else float("inf")
            if earliest <= ended and began <= over:
                allowed.add(name)
        return allowed

    def ask(self, http: httpx.Client, method: str, path: str, **given: Any) -> httpx.Response:
        """Ask, and again only where the connection broke while the server was down."""
        while True:
            outages = self.outages
            try:
                return http.request(method, path, **given)
            except httpx.TransportError:
                if outages == self.outages and not self.down.is_set():
                    raise
                while self.down.is_set() and not self.stop.is_set():
                    time.sleep(0.02)


@dataclass
class Searches:
    """Clients that search at a fixed rate, and what was wrong with what they were told."""

    stage: Stage
    questions: Sequence[str]
    per_second: float
    clients: int = 4
    faults: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    asked: int = 0
    shadow: str | None = None
    """A generation that every fifth question names, once it is ready."""

    def __post_init__(self) -> None:
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(self.clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)

    def go_on(self, seconds: float) -> None:
        """Let so much time pass, and a few questions be asked and answered of every kind that there may be."""
        until, asked = time.monotonic() + seconds, self.asked
        while (
            time.monotonic() < until or self.asked < asked + LEAST or (self.shadow and not self.answers.get("shadow"))
        ):
            time.sleep(0.02)
            assert time.monotonic() < until + 60, "nothing is answered"

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        between = self.clients / self.per_second
        due = time.monotonic() + between * number / self.clients
        with httpx.Client(base_url=self.stage.url, timeout=30, trust_env=False) as http:
            while not self.stage.stop.wait(max(0.0, due - time.monotonic())):
                due += between
                try:
                    self._search(http, chance.choice(self.questions), chance.random() < 0.2)
                except httpx.HTTPError as error:
                    self.faults.append(f"a search failed: {error!r}")

    def _search(self, http: httpx.Client, question: str, shadowed: bool) -> None:
        body: dict[str, Any] = {"query": question, "max_num_results": HITS}
        named = self.shadow if shadowed else None
        if named:
            body["generation"] = named
        began, outages = time.monotonic(), self.stage.outages
        self.asked += 1
        answer = self.stage.ask(http, "POST", f"/v1/vector_stores/{STORE}/search", json=body)
        ended = time.monotonic()
        if answer.status_code != 200:
            self.faults.append(f"a search failed: {answer.status_code} {answer.text[:200]}")
            return
        hits = answer.json()["data"]
        if len(hits) < HITS:
            self.faults.append(f"a search found {len(hits)}")
            return
        found = generations_of(question, hits)
        expected = {NEW} if named else self.stage.may_answer(began, ended)
        if not found & expected:
            self.faults.append(f"an answer of {found or 'two generations'} where {expected} was to answer")
            return
        kind = "shadow" if named else min(found & expected)
        self.answers[kind] = self.answers.get(kind, 0) + 1
        if outages == self.stage.outages and not self.stage.down.is_set():
            self.seconds.append(ended - began)


@dataclass
class Churn:
    """A client that uploads, replaces and deletes some of the documents, and knows what the store is to hold."""

    stage: Stage
    corpus: Corpus
    seed: int
    per_second: float
    faults: list[str] = field(default_factory=list)
    operations: int = 0
    ids: dict[str, str] = field(default_factory=dict)
    now: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.now = dict(self.corpus.texts)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)

    def restore(self, http: httpx.Client) -> None:
        """Bring every document back to what it was at first."""
        for source in sorted(self.now.keys() - self.corpus.texts.keys()):
            self._delete(http, source)
        for source, text in self.corpus.texts.items():
            if self.now.get(source) != text:
                self.put(http, source, text)

    def put(self, http: httpx.Client, source: str, text: str) -> None:
        self.now[source] = text
        file = self._call(http, "POST", "/v1/files", files={"file": (source, text)}, data={"purpose": "assistants"})
        body = {"file_id": file["id"], "source": source, "owned": True}
        if source in self.corpus.texts and source not in self.corpus.touched:
            body["attributes"] = {"kind": "fixed"}
        self._call(http, "POST", f"/v1/vector_stores/{STORE}/files", json=body)
        self.ids[source] = file["id"]

    def _delete(self, http: httpx.Client, source: str) -> None:
        self.now.pop(source)
        self._call(http, "DELETE", f"/v1/vector_stores/{STORE}/files/{self.ids[source]}", gone=True)

    def _run(self) -> None:
        chance, words = random.Random(self.seed), words_of(self.seed)
        with httpx.Client(base_url=self.stage.url, timeout=30, trust_env=False) as http:
            while not self.stage.stop.wait(chance.uniform(0, 2 / self.per_second)):
                source = chance.choice(self.corpus.touched)
                if chance.random() < 0.2:
                    source = f"new-{chance.randrange(50):03d}.txt"
                try:
                    if source in self.now and chance.random() < 0.3:
                        self._delete(http, source)
                    else:
                        self.put(http, source, text_of(chance, words, chance.randint(1, 6)))
                    self.operations += 1
                except httpx.HTTPError as error:
                    self.faults.append(f"a change failed: {error!r}")

    def _call(self, http: httpx.Client, method: str, path: str, *, gone: bool = False, **given: Any) -> Any:
        answer = self.stage.ask(http, method, path, **given)
        if answer.status_code != 200 and not (gone and answer.status_code == 404):  # done before the server died
            self.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer.json()


# ---- the campaign ----------------------------------------------------------------------------------------------------


def campaign(
    *, chunks: int, searches: float, changes: float, seed: int, between: float, kill: bool, anew: bool, data: Path
) -> dict[str, Any]:
    """Run it and return the record; without `anew` indexes are not made anew at the end. Raises AssertionError where a
    promise was broken."""
    corpus = Corpus.made(chunks, seed)
    server = Server(data, free_port())
    server.start()
    stage = Stage(server.url)
    churn = Churn(stage, corpus, seed, changes)
    search = Searches(stage, corpus.questions, searches)
    try:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
            count = _filled(http, churn)
            before = _dense(http, corpus), _best(http, corpus)
            search.start()
            churn.start()
            search.go_on(between)
            made = _call(stage, http, "POST", "/generations", json={"embedder": NEW})
            died_at = _kill(server, stage, http, made["id"]) if kill else None
            built = _ready(stage, http, made["id"])
            search.shadow = made["id"]
            search.go_on(between)
            promotion = _flip(stage, http, NEW, f"/generations/{made['id']}/promote")
            search.go_on(between)
            search.shadow = None  # it goes on as a standby, but the one that is named is not what is asked here
            rollback = _flip(stage, http, OLD, "/rollback")
            search.go_on(between)
            unchanged = _dense(http, corpus)
            stage.stop.set()
            search.join()
            churn.join()
            stage.stop.clear()
            churn.restore(http)
            _settled(http)
            at_once = _best(http, corpus)
            after, rested = _at_rest(http, corpus, before[1])
            standby = _ready(stage, http, made["id"], "standby")
        made_anew = _anew(server, corpus) if anew else after
    finally:
        stage.stop.set()
        server.kill(signal.SIGKILL)
    faults = search.faults + churn.faults
    assert not faults, f"{len(faults)} faults: {faults[:5]}"
    assert unchanged == before[0], "dense scores of documents that nobody touched are others"
    assert after == before[1], "the ten best hits are others"
    assert made_anew == before[1], "the ten best hits of indexes made anew are others"
    assert min(search.answers.get(name, 0) for name in (OLD, NEW, "shadow")) > 0, search.answers
    assert max(promotion, rollback) <= LATEST, (promotion, rollback)
    ordered = sorted(search.seconds)
    return {
        "chunks": count,
        "searches by who answered": dict(sorted(search.answers.items())),
        "failed, empty or mixed": len(search.faults),
        "changes": churn.operations,
        "died at documents": died_at,
        "seconds to build": round(built, 1),
        "seconds of the promotion": round(promotion, 3),
        "seconds of the rollback": round(rollback, 3),
        "dense scores compared to the bit": sum(map(len, unchanged.values())),
        "best hits equal at once": at_once == before[1],
        "seconds of rest until they were": round(rested, 1),
        "search p50, p99 and slowest in ms": [
            round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]) for share in (0.5, 0.99, 1.0)
        ],
        "standby at the end": standby >= 0,
    }


def _filled(http: httpx.Client, churn: Churn) -> int:
    sizes = {"max_chunk_size_tokens": CHUNK_TOKENS, "chunk_overlap_tokens": 0}
    body = {"name": STORE, "embedder": OLD, "chunking_strategy": {"type": "static", "static": sizes}}
    http.post("/v1/vector_stores", json=body).raise_for_status()
    for source, text in churn.corpus.texts.items():
        churn.put(http, source, text)
    return _settled(http)


def _settled(http: httpx.Client, seconds: float = 900.0) -> int:
    """Wait until nothing is at work; how many chunks there are."""
    deadline = time.monotonic() + seconds
    while http.get(f"/v1/vector_stores/{STORE}").json()["file_counts"]["in_progress"]:
        assert time.monotonic() < deadline, "uploads are at work still"
        time.sleep(0.1)
    total, after = 0, dict[str, str]()
    while True:
        page = http.get(f"/v1/vector_stores/{STORE}/files", params={"limit": 100, **after}).json()
        assert {file["state"] for file in page["data"]} <= {"completed"}
        total += sum(file["progress"]["chunks_total"] for file in page["data"])
        if not page["has_more"]:
            return int(total)
        after = {"after": page["last_id"]}


def _dense(http: httpx.Client, corpus: Corpus) -> dict[str, dict[str, float]]:
    """For each question the dense scores of the documents that nobody touches, by their text."""
    found = {}
    for question in corpus.questions:
        body = {"query": question, "mode": "dense", "max_num_results": 50}
        body["filters"] = {"type": "eq", "key": "kind", "value": "fixed"}
        hits = http.post(f"/v1/vector_stores/{STORE}/search", json=body).json()["data"]
        found[question] = {hit["content"][0]["text"]: hit["scores"]["dense"] for hit in hits}
    assert all(len(hits) >= min(50, len(corpus.texts) // 2) for hits in found.values())
    return found


def _best(http: httpx.Client, corpus: Corpus) -> dict[str, list[str]]:
    """For each question the texts of the ten best hits, of those that score alike in the order of the alphabet."""
    found = {}
    for question in corpus.questions:
        body = {"query": question, "max_num_results": HITS}
        hits = http.post(f"/v1/vector_stores/{STORE}/search", json=body).json()["data"]
        ranked = sorted((-round(hit["scores"]["fused"], 5), hit["content"][0]["text"]) for hit in hits)
        found[question] = [text for _, text in ranked]
    return found


def _at_rest(http: httpx.Client, corpus: Corpus, expected: Any) -> tuple[dict[str, list[str]], float]:
    """The best hits once those that are expected have come back, or after long enough; and how many seconds it took."""
    began = time.monotonic()
    longest = REST_SECONDS + 3 * len(corpus.texts) * 4 / CHUNKS_A_SECOND_OF_REST + 15
    while (found := _best(http, corpus)) != expected and time.monotonic() < began + longest:
        time.sleep(0.5)
    return found, time.monotonic() - began


def _anew(server: Server, corpus: Corpus) -> dict[str, list[str]]:
    """The best hits of indexes that are made anew."""
    server.kill(signal.SIGTERM)
    shutil.rmtree(server.data / "views")
    server.start()
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
        return _best(http, corpus)


def _call(stage: Stage, http: httpx.Client, method: str, path: str, **given: Any) -> Any:
    answer = stage.ask(http, method, f"/v1/vector_stores/{STORE}{path}", **given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _kill(server: Server, stage: Stage, http: httpx.Client, generation: str) -> int:
    """Let the server die when a part of the generation is built; how many documents."""
    found = _until(
        lambda: _call(stage, http, "GET", f"/generations/{generation}"),
        lambda told: told["progress"]["documents"]["done"] > 0.3 * told["progress"]["documents"]["total"],
    )
    stage.down.set()
    stage.outages += 1
    server.kill()
    server.start()
    stage.outages += 1
    stage.down.clear()
    return int(found["progress"]["documents"]["done"])


def _ready(stage: Stage, http: httpx.Client, generation: str, state: str = "ready") -> float:
    """Wait until a generation is in a state and lacks nothing; how many seconds that took."""
    began = time.monotonic()
    _until(
        lambda: _call(stage, http, "GET", f"/generations/{generation}"),
        lambda told: told["state"] == state and (state == "ready" or told["progress"]["lag"] == 0),
    )
    return time.monotonic() - began


def _flip(stage: Stage, http: httpx.Client, name: str, path: str) -> float:
    """Promote or roll back; how many seconds that took."""
    began = time.monotonic()
    stage.live.append((began, float("inf"), name))
    _call(stage, http, "POST", path, json={})
    ended = time.monotonic()
    stage.live[-1] = began, ended, name
    return ended - began


def _until(ask: Callable[[], Any], holds: Callable[[Any], bool], seconds: float = 900.0) -> Any:
    deadline = time.monotonic() + seconds
    while not holds(told := ask()):
        assert told["state"] != "failed", told["last_error"]
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=5_000)
    parser.add_argument("--searches", type=float, default=20.0, help="a second")
    parser.add_argument("--changes", type=float, default=3.0, help="a second")
    parser.add_argument("--between", type=float, default=15.0, help="seconds between two events")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = campaign(
            chunks=chosen.chunks,
            searches=chosen.searches,
            changes=chosen.changes,
            seed=chosen.seed,
            between=chosen.between,
            kill=True,
            anew=True,
            data=Path(folder) / "data",
        )
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
