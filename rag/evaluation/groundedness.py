"""Whether each sentence of an answer stands on the passages that it cites, without any model.

Two things are looked at. Every number, unit, name and code of a sentence must be in the cited text (`facts` tells what
counts as the same). And enough of its words must be, weighed by how rare they are (`background`). What this cannot see
is said with every result: `BLIND_SPOTS`.

    >>> lamp = {1: "The lamp charges in two hours. A full battery lasts nine evenings.", 2: "The kettle is blue."}
    >>> found = check("The lamp charges in 2 hours [1]. A full battery lasts ten evenings [1].", lamp)
    >>> [(sentence.supported, [lack.text for lack in sentence.missing]) for sentence in found.sentences]
    [(True, []), (False, ['ten'])]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from indexes.words import analyse
from rag.evaluation import facts
from rag.evaluation.background import weight
from rag.evaluation.claims import Claim, Marker, claims
from rag.segments import segments

if TYPE_CHECKING:
    from rag.answer import Answer
    from rag.context import Context

THRESHOLD = 0.7
"""The share of a sentence's weighed words that the cited text must hold: see `tests.benchmarks.groundedness`."""

NEAR = 0.25
"""A number counts where the passage has it in a sentence that holds this share of the claim's weighed words."""
MOST_ASKED = 50
"""Sentences that are compared with one claim for the sake of its numbers."""
MOST_TOLD = 200
"""Sentences of one answer that are told of one by one."""
WORTH_NAMING = 0.3
"""A missing word is named from this weight on; the commonest hundred or so weigh less."""

BLIND_SPOTS = (
    "negation: 'is' and 'is not' look alike",
    "swapped relations: 'A sued B' and 'B sued A', or a number that belongs to something else in the cited text",
    "signs and comparisons: '-5' and '5', 'more than' and 'less than'",
    "a change of meaning in one or two words that are neither names nor numbers",
    "names where capitals do not tell them: other scripts, German, titles, some words at the start of a sentence",
    "numbers in words of other languages than English; headings and questions are not looked at",
    "the other way round: paraphrases in other words and figures that were worked out are not recognised",
)

Missing = Literal["number", "unit", "name", "code", "word"]


@dataclass(frozen=True)
class Lack:
    """What of a sentence the text that it stands on does not have."""

    kind: Missing
    text: str


@dataclass(frozen=True)
class Sentence:
    """What was found of `answer[start:end]`."""

    start: int
    end: int
    supported: bool
    coverage: float
    """The weighed share of its words that the passages hold, in [0, 1]; 1 where it has none. Numbers are no words."""
    missing: tuple[Lack, ...]
    """What is not there: of the words, those that weigh something."""
    cited: tuple[int, ...]
    """The passages that it cites, also those that are not there."""
    looked_at: tuple[int, ...]
    """The passages that it was compared with: those that it cites; all, where it cites none."""


@dataclass(frozen=True)
class Groundedness:
    """What was found of an answer."""

    sentences: tuple[Sentence, ...]
    blind_spots: tuple[str, ...] = BLIND_SPOTS
    """What passes though it is wrong, or fails though it is right."""

    @property
    def unsupported(self) -> int:
        """Sentences that do not stand on their passages."""
        return sum(not sentence.supported for sentence in self.sentences)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without the blind spots, which are always the same; at most MOST_TOLD sentences each."""
        return {
            "method": "words",
            "sentences": len(self.sentences),
            "unsupported": self.unsupported,
            "details": [asdict(sentence) for sentence in self.sentences[:MOST_TOLD]],
        }


def check(
    answer: str, passages: Mapping[int, str], markers: Sequence[Marker] | None = None, threshold: float = THRESHOLD
) -> Groundedness:
    """Compare every sentence of `answer` with the passages, number to text, that it cites.

    `markers` as in `claims`. A sentence that cites only what is not there is not supported. The time grows with the
    length of the passages, and with that of the answer times the number of passages.
    """
    found = claims(answer, markers)
    first = dict.fromkeys(number for claim in found for number in claim.cited if number in passages)
    sources = {number: _Source(passages[number]) for number in (*first, *passages)}  # so that few need be read at all
    names = facts.capitals_name(f"{answer} {next(iter(passages.values()), '')[:2000]}")
    return Groundedness(tuple(_judged(claim, sources, names, threshold) for claim in found))


def check_answer(context: Context, said: Answer) -> Groundedness:
    """The same for an answer from a context. A passage counts with its title and the headings above it."""
    passages = {
        passage.number: "\n".join((passage.title, *passage.heading_path, passage.text)) for passage in context.passages
    }
    markers = [Marker(cited.number, cited.marker_start, cited.marker_end) for cited in said.citations]
    return check(said.text, passages, markers)


class _Source:
    """What a passage has to offer, as a whole and by its sentences; read when it is first asked."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def sentences(self) -> list[frozenset[str]]:
        return [facts.evidence(self._text[part.start : part.end]) for part in segments(self._text)]

    @cached_property
    def keys(self) -> frozenset[str]:
        return frozenset[str]().union(*self.sentences)

    @cached_property
    def with_number(self) -> dict[str, list[int]]:
        """Which sentences have a number."""
        found: dict[str, list[int]] = {}
        for at, keys in enumerate(self.sentences):
            for key in keys:
                if key.startswith("n:"):
                    found.setdefault(key, []).append(at)
        return found

    def states(self, demand: facts.Demand, near: _Near) -> bool:
        """Whether it has what is demanded: a number in a sentence that speaks of the same."""
        if demand.kind != "number":
            return facts.is_met(demand, self.keys)
        found = [at for key in demand.keys for at in self.with_number.get(key, ())]
        return any(near(self.sentences[at]) for at in found) or (not found and facts.is_met(demand, self.keys))


class _Near:
    """Whether a sentence speaks of the same as a claim: it holds some of its words. Says yes once it has been asked so
    often that something else than the sense must be at work."""

    def __init__(self, words: Collection[str]) -> None:
        self._weights = {f"w:{word}": weight(word) for word in words}
        self._needed = NEAR * sum(self._weights.values())
        self._asked = 0

    def __call__(self, keys: Collection[str]) -> bool:
        self._asked += 1
        if self._asked > MOST_ASKED:
            return True
        return sum(weight for word, weight in self._weights.items() if word in keys) >= self._needed


def _judged(claim: Claim, sources: Mapping[int, _Source], names: bool, threshold: float) -> Sentence:
    looked_at = tuple(number for number in claim.cited or sources if number in sources)
    texts = [sources[number] for number in looked_at]
    stated = facts.code_demands(claim.text) if claim.kind == "code" else facts.demands(claim.text, names=names)
    words = {} if claim.kind == "code" else _words(claim.text)
    near = _Near(words)
    facts_missing = [demand for demand in stated if not any(text.states(demand, near) for text in texts)]
    covered, words_missing = _coverage(words, texts)
    supported = bool(texts) and not facts_missing and covered >= threshold
    lacks = {demand.text: demand.kind for demand in facts_missing}
    missing = [Lack(kind, text) for text, kind in lacks.items()]
    missing += [Lack("word", word) for word in words_missing if word not in lacks]
    return Sentence(claim.start, claim.end, supported, covered, tuple(missing), claim.cited, looked_at)


def _coverage(words: Mapping[str, str], sources: Sequence[_Source]) -> tuple[float, list[str]]:
    """The weighed share of the words that any passage holds, and those missing that weigh something."""
    held = {word for word in words if any(f"w:{word}" in source.keys for source in sources)}
    weights = {word: weight(word) for word in words}
    total = sum(weights.values())
    missing = [written for word, written in words.items() if word not in held and weights[word] >= WORTH_NAMING]
    covered = sum(weights[word] for word in held) / total if total else 1.0
    return min(round(covered, 4), 1.0), list(dict.fromkeys(missing))


def _words(text: str) -> dict[str, str]:
    """The analysed words of a text, each with how it is written; figures, and compounds that have parts, left out."""
    found: dict[str, str] = {}
    for run in facts.normal(text).split():
        terms = analyse(run)
        parts = [term for term in terms if term.isalpha() or not term.isascii()] if len(terms) > 1 else terms
        for term in parts:
            if not any(map(str.isdigit, term)) and term not in facts.NUMBER_WORDS:
                found.setdefault(term, run.strip(".,;:!?\"'()[]*_`") if len(parts) == 1 else term)
    return found
