"""Whether a text has to do with a question at all: an absolute measure, where fused scores only order.

Two signs are averaged. The cosine, on a scale that each space gets once: 0 is what unrelated questions and passages
have in it, 1 what matching ones have (`calibration.jsonl`, 40 pairs, is embedded and compared all with all). And the
share of the question's rare words that the text holds. `tests/benchmarks/relevance.py` chose the weights and the
threshold: over three corpora the average tells answerable questions from off-topic ones with a ROC AUC of .992, the
cosine alone with .987, the words alone with .942.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest
from rag.embedders import Embedder
from rag.embedders.checking import checked_rows, embed_checked
from rag.tokenizers import Tokenizer

DEFAULT_THRESHOLD = 0.5
"""A context is grounded when its best hit reaches this."""

DENSE_WEIGHT = 0.75
"""The cosine's share of the average; the words have the rest."""

NARROWEST = 0.05
"""Between `low` and `high` at least: a space that tells nothing apart must not turn noise into certainty."""


@dataclass(frozen=True)
class Calibration:
    """What a cosine means in one space."""

    low: float
    """The mean cosine of questions with passages about something else: relevance 0."""
    high: float
    """The median cosine of questions with passages that answer them: relevance 1."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """From what `to_json` gave. Raises ChangeRequest (`invalid_calibration`) for anything else."""
        try:
            calibration = cls(low=float(data["low"]), high=float(data["high"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ChangeRequest(f"This is no calibration: {data!r}.", code="invalid_calibration") from error
        if not calibration.low < calibration.high:
            raise ChangeRequest(f"A calibration's low must be below its high: {data!r}.", code="invalid_calibration")
        return calibration


def calibrate(embedder: Embedder) -> Calibration:
    """The scale of an embedder's space. Embeds 80 short texts: a second or two on a CPU. The same every time.

    Raises what the embedder raises, and as `embed_checked` does.
    """
    pairs = _pairs()
    questions = embedder.embed_queries([_fitting(pair["question"], embedder) for pair in pairs])
    questions = checked_rows(embedder, questions, len(pairs))
    passages = embed_checked(embedder, [_fitting(pair["passage"], embedder) for pair in pairs])
    cosines = questions.astype(np.float64) @ passages.astype(np.float64).T
    matching = np.eye(len(pairs), dtype=bool)
    low = float(cosines[~matching].mean())
    high = float(np.median(cosines[matching]))
    return Calibration(low=low, high=max(high, low + NARROWEST))


def _pairs() -> list[dict[str, str]]:
    lines = files("rag").joinpath("calibration.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _fitting(text: str, embedder: Embedder) -> str:
    """The beginning of `text` that a model with a very small window still takes."""
    tokenizer: Tokenizer = embedder.tokenizer
    while len(text) > 1 and tokenizer.count(text) > embedder.limit:
        text = text[: len(text) * 3 // 4]
    return text


def coverage(idf: NDArray[np.float64], holds: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share, in [0, 1], of the question's weight that stands in each text, shape (texts,).

    `idf` has the weight, 0 or more, of each of the question's distinct words; `holds` says which of them (rows) each
    text (columns) has. 0.0 when nothing has any weight.

        >>> coverage(np.array([2.0, 0.0, 3.0]), np.array([[False], [True], [True]]))
        array([0.6])
    """
    total = float(idf.sum())
    if not total > 0:
        return np.zeros(holds.shape[1])
    # Not as a product of matrices, whose last bits depend on where a text stands.
    shares: NDArray[np.float64] = np.minimum((idf[:, None] * holds).sum(axis=0) / total, 1.0)
    return shares


def relevance(cosine: float | None, covered: float | None, calibration: Calibration) -> float:
    """How much a text has to do with a question, in [0, 1], larger is more; compare it with `DEFAULT_THRESHOLD`.

    `cosine` in [-1, 1], `covered` as `coverage` gives it; None where it is not known. Words alone are stretched, so
    that the one threshold serves for them too. Both unknown: 0.0.
    """
    if cosine is None:
        return 0.0 if covered is None else 1.0 - (1.0 - covered) ** 2
    dense = (cosine - calibration.low) / (calibration.high - calibration.low)
    dense = min(max(dense, 0.0), 1.0)
    return dense if covered is None else DENSE_WEIGHT * dense + (1.0 - DENSE_WEIGHT) * covered
