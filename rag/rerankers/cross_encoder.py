"""Reranking by a cross-encoder of sentence-transformers on this machine, with torch in 32-bit floating point.

A model's name resolves as an embedder's does, but never reaches the network. Only safetensors are loaded and no code
from a model's folder is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag.embedders.encoder import unlimited
from rag.embedders.model_files import ResolvedModel, resolve_model
from rag.embedders.torch_encoder import BATCH_TOKENS, FairLock, batches, padded, quiet, unusable
from rag.rerankers import RerankerSpec
from rag.tokenizers import plain

if TYPE_CHECKING:
    import tokenizers
    from sentence_transformers import CrossEncoder

QUESTION_SHARE = 2
"""A question keeps at most half of the tokens, so that there is a passage to read beside it."""


class CrossEncoderReranker:
    """One loaded model under the contract of `Reranker`. A score is the model's own logit, of any size: what a sigmoid
    would make of it is 1 for all that is good.

    The model takes one small batch at a time, in order of arrival.
    """

    def __init__(self, spec: RerankerSpec) -> None:
        """Loads the model, which takes seconds. Raises what `resolve_model` raises, and Unsupported (`unusable_model`)
        for a model that is no cross-encoder of one score."""
        resolved = resolve_model(spec.model)
        _require_classifier(resolved)
        self._model = _load(spec, resolved)
        self._limit = min(filter(None, (spec.token_limit, _limit(self._model))))
        fast = self._model.tokenizer
        self._words = unlimited(fast.backend_tokenizer)
        self._pairs = _cutting_passages(fast.backend_tokenizer, self._limit)
        self._pad, self._left = fast.pad_token_id or 0, fast.padding_side == "left"
        self._types = "token_type_ids" in fast.model_input_names
        self._batch_size = spec.batch_size or BATCH_TOKENS
        self._turn = FairLock()

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(passages),)."""
        head = self._head(plain(question))
        pairs = self._pairs.encode_batch_fast([(head, plain(passage)) for passage in passages])
        scores = np.empty(len(passages), dtype=np.float32)
        for batch in batches([len(pair.ids) for pair in pairs], self._batch_size):
            with self._turn:
                scores[batch] = self._forward([pairs[at] for at in batch])
        return scores

    def _head(self, question: str) -> str:
        """A question as far as it fits."""
        most = self._limit // QUESTION_SHARE
        spans = self._words.encode(question, add_special_tokens=False).offsets
        return question if len(spans) <= most else question[: spans[most - 1][1]]

    def _forward(self, pairs: Sequence[tokenizers.Encoding]) -> NDArray[np.float32]:
        import torch

        ids, mask = padded([pair.ids for pair in pairs], self._pad, left=self._left)
        features: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self._types:
            types, _ = padded([pair.type_ids for pair in pairs], 0, left=self._left)
            features["token_type_ids"] = torch.from_numpy(types)
        device = self._model.device
        with torch.inference_mode():
            scores = self._model({name: value.to(device) for name, value in features.items()})["scores"]
            logits: NDArray[np.float32] = scores.float().reshape(-1).cpu().numpy()
        return logits


def _require_classifier(resolved: ResolvedModel) -> None:
    """Refuse a model that was not trained to judge pairs: transformers would make up a last layer for it."""
    try:
        config = json.loads((resolved.path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unusable(resolved, f"its config.json cannot be read ({error})") from error
    kinds = config.get("architectures") or ["nothing"]
    if not kinds[0].endswith("ForSequenceClassification"):
        raise unusable(resolved, f"it is a {kinds[0]}, not a cross-encoder (…ForSequenceClassification)")


def _load(spec: RerankerSpec, resolved: ResolvedModel) -> CrossEncoder:
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer

    try:
        with quiet():
            model: CrossEncoder = CrossEncoder(
                str(resolved.path),
                device=spec.device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
    except Exception as error:  # each of the libraries beneath has its own for a damaged folder
        raise unusable(resolved, f"it does not load ({error})") from error
    if len(model) != 1 or not isinstance(model[0], Transformer) or "message" in model[0].modality_config:
        raise unusable(resolved, "it is more than a transformer with a last layer")
    if model.num_labels != 1:
        raise unusable(resolved, f"it gives {model.num_labels} scores to a pair, not one")
    if model.default_prompt_name is not None:
        raise unusable(resolved, "it wraps texts in a prompt")
    if not getattr(model.tokenizer, "is_fast", False):
        raise unusable(resolved, "it has no fast tokenizer (tokenizer.json)")
    model.eval()
    return model


def _limit(model: CrossEncoder) -> int:
    """Tokens that the model reads."""
    positions = getattr(model[0].config, "max_position_embeddings", None)
    return int(min((limit for limit in (model.max_seq_length, positions) if limit), default=512))


def _cutting_passages(tokenizer: tokenizers.Tokenizer, limit: int) -> tokenizers.Tokenizer:
    """A copy that cuts the second of a pair where both are too long."""
    copy = unlimited(tokenizer)
    copy.enable_truncation(limit, strategy="only_second")
    return copy
