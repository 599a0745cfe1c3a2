"""Whether drift is noticed within one window: real questions, vectors as the product makes them, foreign ones planted.

    python -m tests.benchmarks.drift [--windows 300] [--json FILE]

A trial draws 1,000 questions of one set as the days before and others of it as the day, and puts a share of foreign
ones into the day. Its alarm is that of the questions' vectors (`shift` or `novelty`): the other signals want a store.
With nothing planted an alarm is a false one. Foreign questions come from one other set (`scifact`: claims; `emanual`:
a device's manual), from many at once (`oos`: what an assistant was never meant for), or are one topic (`intents`: one
intent of `clinc_oos`, another for each trial). `twice` repeats each of the days' questions, as people do.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.embedders import EmbedderRegistry
from rag.evaluation.drift import MOST_VECTORS, vector_signals
from rag.evaluation.shares import wilson
from tests.data import shared_data

Vectors = NDArray[np.float32]
DAYS = (50, 100, 200)


def questions(name: str, file: str = "queries.jsonl") -> list[dict[str, Any]]:
    """The records of one set."""
    return [json.loads(line) for line in (shared_data(name) / file).read_text(encoding="utf-8").splitlines()]


def trial(usual: Vectors, foreign: Vectors, day: int, share: float, seed: int) -> list[str]:
    """Which alarms one window gives."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(usual))
    before, own = usual[order[:MOST_VECTORS]], usual[order[MOST_VECTORS:]]
    planted = round(day * share)
    strange = foreign[draw.choice(len(foreign), planted, replace=planted > len(foreign))]
    signals = vector_signals(before, np.concatenate([own[: day - planted], strange]), seed + 1_000_000)
    return [signal.name for signal in signals if signal.alarm]


def measured(usual: Vectors, foreign: Sequence[Vectors], day: int, share: float, windows: int) -> dict[str, Any]:
    """How many windows of so many give an alarm, and by which signal; the foreign sets take turns."""
    alarms = [trial(usual, foreign[seed % len(foreign)], day, share, seed) for seed in range(windows)]
    hits = sum(map(bool, alarms))
    return {
        "day": day,
        "share": share,
        "windows": windows,
        "alarms": hits,
        "rate": round(hits / windows, 4),
        "interval": [round(end, 4) for end in wilson(hits, windows)],
        **{name: sum(name in one for one in alarms) for name in ("shift", "novelty")},
    }


def collections(limit: int) -> tuple[Mapping[str, Vectors], Mapping[str, Sequence[Vectors]]]:
    """Vectors of usual questions and of foreign ones, by name."""
    embedder = EmbedderRegistry.from_tables({}).open("default")
    draw = np.random.default_rng(0)

    def embedded(texts: Sequence[str]) -> Vectors:
        some = [texts[at] for at in draw.permutation(len(texts))[:limit]]
        return np.asarray(embedder.embed_queries(some), dtype=np.float32)

    clinc = questions("clinc_oos")
    intents = defaultdict[str, list[str]](list)
    for row in clinc:
        intents[row["intent"]].append(row["text"])
    oos = intents.pop("oos")
    names = sorted(intents)
    apart, usual_intents = names[::10], [name for at, name in enumerate(names) if at % 10]
    squad = embedded([row["question"] for row in questions("squad2_open", "qa.jsonl")])
    usual = {
        "squad": squad,
        "clinc": embedded([text for name in usual_intents for text in intents[name]]),
        "twice": np.repeat(squad[: len(squad) // 2], 2, axis=0),
    }
    foreign = {
        "scifact": [embedded([row["text"] for row in questions("scifact")])],
        "emanual": [embedded([row["text"] for row in questions("emanual_support")])],
        "oos": [embedded(oos)],
        "intents": [embedded(intents[name]) for name in apart],
    }
    return usual, foreign


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--questions", type=int, default=3_000, help="of each set, at most")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    usual, foreign = collections(options.questions)
    pairs = [("squad", "scifact"), ("squad", "emanual"), ("squad", "oos"), ("squad", "intents")]
    pairs += [("clinc", "scifact"), ("clinc", "oos"), ("clinc", "intents"), ("twice", "emanual")]
    found: list[dict[str, Any]] = []
    for asked in usual:
        for day in DAYS:
            one = measured(usual[asked], [usual[asked]], day, 0.0, options.windows)
            found.append({"usual": asked, "foreign": None, **one})
            print(_said(found[-1]), flush=True)
    for asked, strange in pairs:
        for day, share in ((50, 0.2), (100, 0.2), (200, 0.2), (200, 0.1)):
            one = measured(usual[asked], foreign[strange], day, share, options.windows // 3)
            found.append({"usual": asked, "foreign": strange, **one})
            print(_said(found[-1]), flush=True)
    if options.json:
        options.json.write_text("".join(json.dumps(one) + "\n" for one in found))


def _said(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return (
        f"{one['usual']:12} {one['foreign'] or '-':8} {one['share']:4.0%} of {one['day']:3}: {one['alarms']:3} of "
        f"{one['windows']:3} windows, {one['rate']:6.1%} [{low:.1%} to {high:.1%}]; shift {one['shift']}, novelty "
        f"{one['novelty']}"
    )


if __name__ == "__main__":
    main()
