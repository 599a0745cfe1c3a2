"""How well the model-free check of groundedness tells what stands on a passage from what does not.

    python -m tests.benchmarks.groundedness [--each 500] [--json FILE]

Sentences of real passages (`squad2_open`) cite their passage: as they are, written with other signs, or edited by a
seeded hand (a sentence of another article, a wrong name, a changed number, a negation, two names or numbers swapped).
The articles fall into two halves: the thresholds were chosen on one, and the other is what is reported. Then what
people judged (`begin`, `attributionbench_dev`), whose positives are in other words than the passage; seven languages
more (`xquad_multi`); and what three backgrounds make of the words. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from indexes.words import analyse, content_words
from rag.evaluation.agreement import macro_f1
from rag.evaluation.background import weight
from rag.evaluation.groundedness import THRESHOLD, check
from rag.segments import segments
from tests.benchmarks.relevance import auc, lines

Document = Mapping[str, str]

SHORTEST = 6
"""Words of a sentence that is used; of scripts without spaces, three characters for each."""
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?![\w.,]*\d)")
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)


@dataclass(frozen=True)
class Case:
    """A sentence and the passage that it cites."""

    claim: str
    passage: str


class Corpus:
    """Documents with their sentences, and what is a name among their words."""

    def __init__(self, documents: Sequence[Document], names: frozenset[str]) -> None:
        self._names = names
        self.sentences = [(document, sentence) for document in documents for sentence in sentences(document["text"])]
        self.known = sorted(
            {(document["title"], name) for document, text in self.sentences for name in self.names(text)}
        )

    def names(self, sentence: str) -> list[str]:
        """The different names of a sentence, of one word each."""
        return list(dict.fromkeys(word for word in WORD.findall(sentence) if word in self._names))


def sentences(text: str) -> list[str]:
    """The sentences of a text that are long enough and ask nothing."""
    found = (text[part.start : part.end] for part in segments(text) if part.kind == "sentence")
    return [one for one in found if max(len(one.split()), len(one) // 18) >= SHORTEST and one[-1] not in "?？؟"]


def names_of(documents: Sequence[Document]) -> frozenset[str]:
    """Words that have a capital nine times of ten where they stand inside of a sentence, and are seen there thrice:
    told by counting, and so by something else than what is measured."""
    capital, plain = Counter[str](), Counter[str]()
    for document in documents:
        for sentence in sentences(document["text"]):
            for word in WORD.findall(sentence)[1:]:
                if word[0].isupper():
                    capital[word] += 1
                else:
                    plain[word.casefold()] += 1
    return frozenset(
        word for word, seen in capital.items() if seen >= 3 and len(word) > 2 and seen >= 9 * plain[word.casefold()]
    )


def halves(most: int | None = None) -> tuple[Corpus, Corpus]:
    """Articles to tune on, and articles to report on; of the first documents only, with `most`."""
    documents = lines("squad2_open", "corpus.jsonl")[:most]
    names = names_of(documents)
    tune = [document for document in documents if _is_even(document["title"])]
    report = [document for document in documents if not _is_even(document["title"])]
    return Corpus(tune, names), Corpus(report, names)


def _is_even(text: str) -> bool:
    return sha256(text.encode()).digest()[0] % 2 == 0


# ---- edits: a sentence of a document as an answer has it, or None where there is nothing to edit ---------------------

Edit = Callable[[Corpus, Document, str, random.Random], str | None]


def verbatim(_corpus: Corpus, _document: Document, sentence: str, _draw: random.Random) -> str | None:
    return sentence


_SMALL = dict(zip("23456789", ["two", "three", "four", "five", "six", "seven", "eight", "nine"], strict=True))
_SIGNS: list[tuple[str, Any]] = [
    (r"(?<=\d),(?=\d{3}\b)", ""),
    (r"(?<=\d)\s?%", " percent"),
    (r"(?<=\d)\s(?:km|kilometres|kilometers)\b", "km"),
    (rf"\b({MONTHS}) (\d{{1,2}}), (?=\d{{4}})", r"\2 \1 "),
    (r"\"([^\"]+)\"", r"“\1”"),
    (r"(?<=\w)'(?=s\b)", "’"),
    (r"(?<=\w) - (?=\w)", " – "),
    (r"(?<![\w.,$£€])([2-9])(?= [a-z])", lambda found: _SMALL[found[1]]),
    (r"(?<=[a-z] )([a-z]{7,})(?= [a-z])", r"**\1**"),
]


def reformatted(_corpus: Corpus, _document: Document, sentence: str, _draw: random.Random) -> str | None:
    """The same in other signs: separators, units, dates, quotes, small numbers in words, marks of emphasis."""
    changed = sentence
    for pattern, instead in _SIGNS:
        changed = re.sub(pattern, instead, changed)
    return changed if changed != sentence else None


def foreign(corpus: Corpus, document: Document, _sentence: str, draw: random.Random) -> str | None:
    other, stranger = draw.choice(corpus.sentences)
    return stranger if other["title"] != document["title"] else None


def wrong_name(corpus: Corpus, document: Document, sentence: str, draw: random.Random) -> str | None:
    """One name is one of another article, which this passage does not have in any form."""
    mine = corpus.names(sentence)
    title, other = draw.choice(corpus.known)
    bare = re.sub(r"['’]s?$", "", other).casefold().removesuffix("s")
    if not mine or title == document["title"] or bare in f"{document['title']} {document['text']}".casefold():
        return None
    return re.sub(rf"\b{re.escape(draw.choice(mine))}\b", other, sentence)


def changed_number(_corpus: Corpus, _document: Document, sentence: str, draw: random.Random) -> str | None:
    """One digit is another one; it may be that the passage has the new number too, elsewhere."""
    found = list(NUMBER.finditer(sentence))
    if not found:
        return None
    chosen = draw.choice(found)
    at = draw.choice([at for at in range(chosen.start(), chosen.end()) if sentence[at].isdecimal()])
    digit = draw.choice([one for one in "123456789" if one != sentence[at]])
    return f"{sentence[:at]}{digit}{sentence[at + 1 :]}"


def negated(_corpus: Corpus, _document: Document, sentence: str, _draw: random.Random) -> str | None:
    auxiliary = r"\b(is|are|was|were|can|could|has|have|had|will|would|may|should|must) (?!not\b)"
    changed = re.sub(auxiliary, r"\1 not ", sentence, count=1)
    return changed if changed != sentence else None


def swapped_names(corpus: Corpus, _document: Document, sentence: str, draw: random.Random) -> str | None:
    return _swapped(sentence, corpus.names(sentence), draw)


def swapped_numbers(_corpus: Corpus, _document: Document, sentence: str, draw: random.Random) -> str | None:
    return _swapped(sentence, list(dict.fromkeys(NUMBER.findall(sentence))), draw)


def _swapped(sentence: str, things: Sequence[str], draw: random.Random) -> str | None:
    if len(things) < 2:
        return None
    one, two = draw.sample(things, 2)
    either = rf"\b(?:{re.escape(one)}|{re.escape(two)})\b"
    changed = re.sub(either, lambda found: two if found.group() == one else one, sentence)
    return changed if changed != sentence else None


POSITIVE: dict[str, Edit] = {"verbatim": verbatim, "reformatted": reformatted}
NEGATIVE: dict[str, Edit] = {
    "foreign sentence": foreign,
    "wrong name": wrong_name,
    "changed number": changed_number,
    "negation": negated,
    "swapped names": swapped_names,
    "swapped numbers": swapped_numbers,
}


def cases(corpus: Corpus, edit: Edit, number: int, seed: str) -> list[Case]:
    """So many cases of one kind; the same ones for the same seed."""
    draw = random.Random(seed)
    found: list[Case] = []
    while len(found) < number:
        document, sentence = draw.choice(corpus.sentences)
        claim = edit(corpus, document, sentence, draw)
        if claim is not None:
            found.append(Case(claim, f"{document['title'].replace('_', ' ')}\n{document['text']}"))
    return found


# ---- judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What was found of a case: its coverage, and the kinds of facts that are missing."""

    coverage: float
    lacks: frozenset[str]

    def supported(self, threshold: float = THRESHOLD) -> bool:
        return not self.lacks and self.coverage >= threshold


def judge(case: Case) -> Verdict:
    """The case as it would stand in an answer; where it is several sentences, the worst of each."""
    found = check(f"{case.claim} [1]", {1: case.passage}).sentences
    lacks = frozenset(lack.kind for sentence in found for lack in sentence.missing if lack.kind != "word")
    return Verdict(min((sentence.coverage for sentence in found), default=1.0), lacks)


def wilson(hits: int, number: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, spread = hits / number, z * z / number
    half = z * math.sqrt(share * (1 - share) / number + spread / number / 4)
    return (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)


def by_people(name: str) -> Iterator[tuple[str, bool, Case]]:
    """Half and source, whether people called it grounded, and the case. `begin` has a test split of its own."""
    for row in lines("groundedness", f"{name}.jsonl"):
        if row["label"] in ("grounded", "not_grounded"):
            claim = re.sub(r"\s*\[\d+\]", "", row.get("claim") or row["response"])
            half = "report" if row["split"] == "test" or (name != "begin" and not _is_even(row["_id"])) else "tune"
            yield f"{half} {row['src']}", row["label"] == "grounded", Case(claim, "\n".join(row["context"]))


# ---- what is printed -------------------------------------------------------------------------------------------------


def edited(each: int) -> dict[str, Any]:
    """Of each kind of case and half, the share that is judged supported, by threshold."""
    told: dict[str, Any] = {}
    for half, corpus in zip(("tune", "report"), halves(), strict=True):
        print(f"{half}: {len(corpus.sentences):,} sentences; of {each} cases each, judged supported by threshold")
        print(f"  {'':22}" + "".join(f"{threshold:7.2f}" for threshold in THRESHOLDS))
        for kind, edit in {**POSITIVE, **NEGATIVE}.items():
            verdicts = [judge(case) for case in cases(corpus, edit, each, f"{half} {kind}")]
            right = sum(verdict.supported() == (kind in POSITIVE) for verdict in verdicts)
            low, high = wilson(right, each)
            told[f"{half} {kind}"] = {"right": right, "of": each, "interval": [round(low, 4), round(high, 4)]}
            print(f"  {kind:22}" + _row(verdicts) + f"   right {right / each:.1%} ({low:.1%} to {high:.1%})")
    return told


def _row(verdicts: Sequence[Verdict]) -> str:
    return "".join(f"{sum(v.supported(t) for v in verdicts) / len(verdicts):7.1%}" for t in THRESHOLDS)


def judged_by_people(name: str) -> dict[str, Any]:
    """Macro-F1 by threshold and source, and of what people called grounded the share that is not."""
    found: dict[str, list[tuple[bool, Verdict]]] = defaultdict(list)
    for key, label, case in by_people(name):
        found[key].append((label, judge(case)))
    print(f"{name}: macro-F1 by threshold")
    told = {}
    for key, pairs in sorted(found.items()):
        labels = [label for label, _ in pairs]
        scores = {t: macro_f1(labels, [v.supported(t) for _, v in pairs]) for t in THRESHOLDS}
        alarms = sum(label and not verdict.supported() for label, verdict in pairs) / sum(labels)
        lacking = Counter(kind for label, verdict in pairs if label for kind in verdict.lacks)
        told[key] = {"n": len(pairs), "macro_f1": round(scores[THRESHOLD], 4), "false_alarms": round(alarms, 4)}
        print(f"  {key:26}" + "".join(f"{score:7.1%}" for score in scores.values())
              + f"   n = {len(pairs)}, false alarms {alarms:.1%}, facts they lack: {dict(lacking)}")  # fmt: skip
    for half in ("tune", "report"):
        mine = [one["macro_f1"] for key, one in told.items() if key.startswith(half)]
        told[half] = {"mean macro_f1": round(sum(mine) / len(mine), 4)}
        print(f"  {half}: mean over its sources {sum(mine) / len(mine):.1%}")
    return told


def other_languages(each: int) -> dict[str, Any]:
    """The same for translations of one set of passages; names are not told there by counting."""
    told: dict[str, Any] = {}
    by_language = defaultdict[str, list[Document]](list)
    for row in lines("xquad_multi", "corpus.jsonl"):
        by_language[row["_id"].partition(":")[0]].append(
            {"title": row["_id"].partition(":")[2].partition("-")[0], "text": row["text"]}
        )
    print(f"xquad_multi: judged rightly, of {each} cases each")
    for language, documents in by_language.items():
        corpus = Corpus(documents, frozenset())
        told[language] = {}
        for kind in ("verbatim", "foreign sentence", "changed number"):
            verdicts = [
                judge(case) for case in cases(corpus, {**POSITIVE, **NEGATIVE}[kind], each, f"{language} {kind}")
            ]
            told[language][kind] = sum(verdict.supported() == (kind in POSITIVE) for verdict in verdicts) / each
        print(f"  {language}: " + ", ".join(f"{kind} {share:.1%}" for kind, share in told[language].items()))
    return told


def backgrounds() -> None:
    """How well the words alone tell grounded from not (ROC AUC), weighed by three backgrounds."""
    rows = [
        (key.split()[1], label, case)
        for name in ("begin", "attributionbench_dev")
        for key, label, case in by_people(name)
    ]
    texts = {case.passage: set(analyse(case.passage)) for _, _, case in rows}
    frequency = Counter(word for words in texts.values() for word in words)
    weights: dict[str, Callable[[str], float]] = {
        "shipped": weight,
        "of the corpus": lambda word: math.log(1 + (len(texts) - frequency[word] + 0.5) / (frequency[word] + 0.5)),
        "all alike": lambda word: float(content_words(f"{word} the") == [word]),
    }
    for name, weigh in weights.items():
        scores = defaultdict[str, dict[bool, list[float]]](lambda: {True: [], False: []})
        for source, label, case in rows:
            words = {word: weigh(word) for word in analyse(case.claim)}
            held = sum(value for word, value in words.items() if word in texts[case.passage])
            scores[source][label].append(held / (sum(words.values()) or 1))
        areas = {source: auc(np.array(both[True]), np.array(both[False])) for source, both in scores.items()}
        print(f"words {name:14}" + "  ".join(f"{source} {area:.3f}" for source, area in areas.items())
              + f"  mean {sum(areas.values()) / len(areas):.3f}")  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=500, help="cases of each kind in each half")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    told = {"threshold": THRESHOLD, "edited": edited(options.each)}
    told |= {name: judged_by_people(name) for name in ("begin", "attributionbench_dev")}
    told["languages"] = other_languages(min(options.each, 200))
    backgrounds()
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
