"""Entailment by a cross-encoder that was trained on natural-language inference, on this machine.

The model is a folder in the form of sentence-transformers or transformers, with safetensors. Which of its outputs means
entailment its own configuration says (`id2label`); a model with a single output gives the probability of it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from indexes.errors import ChangeRequest
from rag.embedders.model_files import resolve_model
from rag.evaluation.entailment import Pair
from rag.segments import segments
from rag.settings import Settings

SPECIAL_TOKENS = 4
"""Marks around a pair, at most."""
LIKELY = 0.5
"""The probability of entailment from which a text supports a statement."""


class CrossEncoderNli:
    """See `rag.evaluation.entailment.Entailment`. A text longer than the model reads is asked about in parts, at the
    borders of its sentences: it supports what one of them supports."""

    def __init__(self, settings: Settings) -> None:
        """Loads the model, which takes seconds. Raises ChangeRequest or NotThere for one that cannot be used."""
        name = settings.groundedness.nli
        if name is None:
            raise ChangeRequest(
                "No model of natural-language inference is named. Set groundedness.nli to the folder of one.",
                code="no_nli_model",
                param="groundedness.nli",
            )
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(str(resolve_model(name).path), device="cpu", local_files_only=True)
        self._column = self._entailment(name)
        self._limit = min(self._model.config.max_position_embeddings, self._model.tokenizer.model_max_length)

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See `Entailment`. Raises ChangeRequest for a statement too long for the model, or a model that fails."""
        owners, parts = [], []
        for at, (text, statement) in enumerate(pairs):
            for part in self._parts(text, statement):
                owners.append(at)
                parts.append((part, statement))
        likely = [False] * len(pairs)
        for at, probability in zip(owners, self._probabilities(parts), strict=True):
            likely[at] |= bool(probability >= LIKELY)
        return likely

    def close(self) -> None:
        """Nothing is held beyond memory."""

    def _probabilities(self, pairs: Sequence[Pair]) -> np.ndarray:
        if not pairs:
            return np.zeros(0)
        import torch

        found = self._model.predict(list(pairs), activation_fn=torch.nn.Identity(), show_progress_bar=False)
        logits = np.asarray(found, np.float64)
        if not np.isfinite(logits).all():
            raise ChangeRequest("The NLI model gives what is no number. Choose another.", code="nli_failed")
        if self._column is None:
            return np.asarray(1 / (1 + np.exp(-logits.reshape(len(pairs)))))
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponents[:, self._column] / exponents.sum(axis=1))

    def _parts(self, text: str, statement: str) -> Iterator[str]:
        """The text in parts that fit beside the statement, cut where sentences end if there is such a place."""
        room = self._limit - len(self._tokens(statement)) - SPECIAL_TOKENS
        if room < 1:
            raise ChangeRequest("A statement is longer than the NLI model reads. Shorten it.", code="text_too_long")
        spans = self._tokens(text)
        starts, ends = [start for start, _ in spans], [part.end for part in segments(text)]
        begin = 0
        while begin < len(spans):
            stop = min(begin + room, len(spans))
            ended = bisect_right(ends, spans[stop - 1][1])
            if stop < len(spans) and ended and ends[ended - 1] > spans[begin][0]:
                stop = bisect_left(starts, ends[ended - 1])
            yield text[spans[begin][0] : spans[stop - 1][1]]
            begin = stop

    def _tokens(self, text: str) -> list[tuple[int, int]]:
        """The span of each token."""
        found = self._model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(start, end) for start, end in found["offset_mapping"] if end > start]

    def _entailment(self, name: str) -> int | None:
        labels = {int(at): str(label).casefold() for at, label in self._model.config.id2label.items()}
        if len(labels) == 1:
            return None
        found = [at for at, label in labels.items() if label.startswith("entail") and "not" not in label]
        if len(found) != 1:
            raise ChangeRequest(
                f"The model {name!r} does not say which of its outputs is entailment: {', '.join(labels.values())}. "
                "Name it in id2label of its config.json.",
                code="no_entailment_label",
                param="groundedness.nli",
            )
        return found[0]
