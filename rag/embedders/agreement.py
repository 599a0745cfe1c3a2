"""Whether another way to compute a model's vectors may stand in for the original: measured on fixed texts, before use.

Two things are asked: how near each text's vector is to the original's (cosine), and whether questions find the same
texts (the share of the original's ten nearest that the other finds as well).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from rag.embedders.encoder import Encoder

NEAREST = 10

OTHER_TEXTS = (
    "def add(first: int, second: int) -> int:\n    return first + second",
    "| model | year | price |\n|---|---|---|\n| R-200 | 2019 | 49.90 |\n| R-300 | 2023 | 79.00 |",
    "2026-11-24 13:05:11 ERROR connection to 10.0.0.7:5432 refused (attempt 3 of 5)",
    "https://example.org/manual/setup?lang=en#wireless",
    "Der Wasserfilter soll alle zwei Monate gewechselt werden, sonst schmeckt der Kaffee bitter.",
    "La garantie couvre les pièces pendant deux ans à compter de la date d'achat.",
    "El mando a distancia no responde: cambie las pilas y acérquese al televisor.",
    "Чтобы сбросить пароль, откройте настройки и выберите «Безопасность».",
    "لتحديث البرنامج، صِل الجهاز بالإنترنت ثم أعد تشغيله.",
    "बैटरी को पहली बार पूरी तरह चार्ज करने में तीन घंटे लगते हैं।",
    "电源指示灯闪烁红色表示设备过热，请先关机并等待十分钟。",
    "フィルターは水洗いできます。完全に乾いてから取り付けてください。",
    "!!! *** ??? -- 1 2 3 4 5 6 7 8 9",
    "OK",
    "",
)
"""Beside the pairs of `calibration.jsonl`, which are plain English: what else documents hold."""


@dataclass(frozen=True)
class Agreement:
    """How far two encoders agree. All in [0, 1] for any model worth having; 1 is in everything."""

    cosine_mean: float
    cosine_min: float
    nearest_shared: float
    """The mean share of the original's ten nearest texts that are also the other's."""

    def reaches(self, floor: Agreement) -> bool:
        """Whether every number is at least the floor's."""
        return (
            self.cosine_mean >= floor.cosine_mean
            and self.cosine_min >= floor.cosine_min
            and self.nearest_shared >= floor.nearest_shared
        )

    def __str__(self) -> str:
        return (
            f"cosine {self.cosine_mean:.5f} in the mean and {self.cosine_min:.5f} at least, "
            f"{self.nearest_shared:.1%} of the nearest the same"
        )


FLOORS = {
    "onnx-fp32": Agreement(cosine_mean=0.99999, cosine_min=0.9999, nearest_shared=0.99),
    "onnx-int8": Agreement(cosine_mean=0.99, cosine_min=0.97, nearest_shared=0.9),
}
"""What a build must reach. One of rounded numbers that does ranks as well as the original, as far as 300 questions can
tell (`python -m tests.benchmarks.embedding quality`)."""


@dataclass(frozen=True)
class Samples:
    """The fixed texts as the original reads and embeds them."""

    ids: list[list[int]]
    """Token ids, special tokens included; the questions come first, then the passages, short and long."""
    questions: int
    rows: NDArray[np.float64]


def sample(original: Encoder) -> Samples:
    """The texts, none over the model's limit, with the original's vectors."""
    lines = files("rag").joinpath("calibration.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    questions = [pair["question"] for pair in pairs]
    passages = [*(pair["passage"] for pair in pairs), *OTHER_TEXTS]
    long = [" ".join(passages[start:end]) for start, end in pairwise(accumulate(range(2, 9), initial=0))]
    whole = " ".join(passages)
    cut = type(original.tokenizer).from_str(original.tokenizer.to_str())
    cut.enable_truncation(original.facts.token_limit)
    ids = [encoding.ids for encoding in cut.encode_batch_fast([*questions, *passages, *long, whole])]
    return Samples(ids, len(questions), original.encode(ids, 0).astype(np.float64))


def measure(samples: Samples, other: Encoder) -> Agreement:
    """How far another encoder agrees with the one that the samples are from."""
    rows = other.encode(samples.ids, 0).astype(np.float64)
    if not np.isfinite(rows).all():
        return Agreement(0.0, 0.0, 0.0)
    cosines = (samples.rows * rows).sum(axis=1)
    nearest, found = (_nearest(those, samples.questions) for those in (samples.rows, rows))
    shared = [len(set(first) & set(second)) / len(first) for first, second in zip(nearest, found, strict=True)]
    return Agreement(float(cosines.mean()), float(cosines.min()), float(np.mean(shared)))


def _nearest(rows: NDArray[np.float64], questions: int) -> list[list[int]]:
    """The numbers of the passages nearest to each question; the questions' rows come first."""
    order = np.argsort(-(rows[:questions] @ rows[questions:].T), axis=1, kind="stable")
    found: list[list[int]] = order[:, :NEAREST].tolist()
    return found
