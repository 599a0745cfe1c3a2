"""A sentence-transformers model computed with torch in 32-bit floating point, on the processor or an accelerator.

Only safetensors are loaded and no code from a model's folder is ever run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest, RagError, Unsupported
from rag.embedders import ORIGINAL
from rag.embedders.encoder import ModelFacts, unlimited
from rag.embedders.model_files import ResolvedModel

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH_TOKENS = 1024
"""Tokens of one pass, padding included: larger ones fall out of the processor's caches and hold up queries."""


class TorchEncoder:
    """One loaded model under the contract of `Encoder`.

    The model takes one small batch at a time, in order of arrival, so that a question that comes in the middle of an
    ingestion waits for one batch, never for all of them.
    """

    build = ORIGINAL

    def __init__(
        self,
        resolved: ResolvedModel,
        *,
        pooling: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        attention: str | None = None,
    ) -> None:
        """Loads the model, which takes seconds. `attention` is an implementation of transformers'.

        Raises ChangeRequest or Unsupported for a model that cannot be used as asked.
        """
        self.model = _load(resolved, device, threads, attention)
        _set_pooling(self.model, pooling, resolved)
        self.facts = _facts(self.model, resolved)
        fast = self.model.tokenizer
        self.tokenizer = unlimited(fast.backend_tokenizer)
        self.types = "token_type_ids" in fast.model_input_names
        """Whether the model tells segments of a text apart."""
        self._pad = fast.pad_token_id or 0
        self._left = fast.padding_side == "left"
        last = self.tokenizer.encode("").ids
        self._leading_special = len(last) - (1 if last and last[-1] in fast.all_special_ids else 0)
        self._batch_texts = batch_size or BATCH_TOKENS
        self._turn = FairLock()

    def encode(self, ids: Sequence[Sequence[int]], prompt_tokens: int) -> NDArray[np.float32]:
        """Unit rows, in order: shape (len(ids), dimension)."""
        rows = np.empty((len(ids), self.facts.dimension), dtype=np.float32)
        for batch in batches([len(row) for row in ids], self._batch_texts):
            with self._turn:
                rows[batch] = self._forward([ids[i] for i in batch], prompt_tokens)
        return rows

    def close(self) -> None:
        """Nothing to let go of."""

    def _forward(self, ids: list[Sequence[int]], prompt_tokens: int) -> NDArray[np.float32]:
        """One pass over all modules of the model, without what `SentenceTransformer.encode` adds for each batch."""
        import torch

        tokens, mask = padded(ids, self._pad, left=self._left)
        features: dict[str, Any] = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
        if self.types:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        device = self.model.device
        features = {name: value.to(device) for name, value in features.items()}
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens + self._leading_special
        with torch.inference_mode():
            rows = self.model(features)["sentence_embedding"].float()
            unit: NDArray[np.float32] = torch.nn.functional.normalize(rows, p=2, dim=1).cpu().numpy()
        return unit


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, the longest first, each at most `BATCH_TOKENS` when padded."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and ((len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS or len(batch) == most):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(ids: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of numbers as one array of the longest one's width, and where in it they stand (1) and do not (0)."""
    width = max(len(row) for row in ids)
    tokens = np.full((len(ids), width), pad, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for i, row in enumerate(ids):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[i, place] = row
        mask[i, place] = 1
    return tokens, mask


class FairLock:
    """A lock given in order of arrival.

    A plain lock goes mostly to the thread that has just released it, and a question would starve beside an ingestion.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = 0
        self._serving = 0

    def __enter__(self) -> None:
        with self._changed:
            ticket = self._tickets
            self._tickets += 1
            self._changed.wait_for(lambda: self._serving == ticket)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._serving += 1
            self._changed.notify_all()


def has_device(name: str) -> bool:
    """Whether this machine has the device (`cuda`, `cuda:1`, `mps`) and this torch can use it.

    Raises ChangeRequest (`invalid_settings`) for what is no device's name.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ChangeRequest(
            f"There is no kind of device {name!r}. Name one as torch does: cpu, cuda, cuda:1, mps.",
            code="invalid_settings",
            param="device",
        ) from error
    if device.type == "cpu":
        return True
    found = torch.accelerator.current_accelerator(check_available=True)
    return found is not None and found.type == device.type and (device.index or 0) < torch.accelerator.device_count()


def _load(
    resolved: ResolvedModel, device: str | None, threads: int | None, attention: str | None
) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer

    if threads is not None:
        torch.set_num_threads(threads)
    choices: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32}
    if attention is not None:
        choices["attn_implementation"] = attention
    try:
        with quiet():
            model = SentenceTransformer(
                str(resolved.path),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs=choices,
            )
    except Exception as error:  # each of the libraries beneath has its own for a damaged folder
        raise unusable(resolved, f"it does not load ({error})") from error
    _require_plain_text(model, resolved)
    model.eval()
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from the model libraries while they load."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _require_plain_text(model: SentenceTransformer, resolved: ResolvedModel) -> None:
    """Refuse what `TorchEncoder` would not compute as the library does."""
    from sentence_transformers.base.modules import Transformer

    first = model[0]
    if not isinstance(first, Transformer):
        raise unusable(resolved, f"its first module is a {type(first).__name__}, not a transformer")
    if getattr(first, "query_expansion", None) is not None or "message" in first.modality_config:
        raise unusable(resolved, "it wraps texts in a chat template or expands queries")
    # Without these files transformers makes up an empty vocabulary, and every text becomes the same vector.
    known = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
    if not any(any(resolved.path.glob(pattern)) for name in known for pattern in (name, f"*/{name}")):
        raise unusable(resolved, f"it has no vocabulary ({', '.join(known)})")
    if not getattr(model.tokenizer, "is_fast", False):
        raise unusable(resolved, "it has no fast tokenizer (tokenizer.json)")


def _set_pooling(model: SentenceTransformer, pooling: str | None, resolved: ResolvedModel) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    if pooling is None:
        return
    if pooling not in Pooling.POOLING_MODES:
        raise ChangeRequest(
            f"There is no pooling {pooling!r}. Known: {', '.join(Pooling.POOLING_MODES)}.",
            code="invalid_settings",
            param="pooling",
        )
    for name, module in model.named_children():
        if isinstance(module, Pooling):
            model._modules[name] = Pooling(module.embedding_dimension, pooling, module.include_prompt)
            return
    raise unusable(resolved, "it has no pooling that could be set")


def _facts(model: SentenceTransformer, resolved: ResolvedModel) -> ModelFacts:
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise unusable(resolved, "it does not say how long its vectors are")
    query, document = _prefixes(model)
    positions = getattr(model[0].config, "max_position_embeddings", None)
    own = [getattr(model[0], name, None) for name in ("max_seq_length", "query_length", "document_length")]
    limits = [int(limit) for limit in (*own, positions) if limit and limit > 0]
    return ModelFacts(
        dimension=dimension,
        pooling=_pooling(model),
        query_prefix=query,
        document_prefix=document,
        token_limit=min(limits),
        positions=positions,
    )


def _prefixes(model: SentenceTransformer) -> tuple[str, str]:
    """Query and document prefix from the model's configuration, chosen as the library chooses them."""
    prompts = model.prompts
    document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), None)
    return prompts.get("query") or "", document or ""


def _pooling(model: SentenceTransformer) -> str:
    """The pooling, then whatever modules change its vectors: `mean`, `cls+Dense`."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    names = []
    for module in model:
        if isinstance(module, Pooling):
            modes = module.pooling_mode
            names.append(modes if isinstance(modes, str) else ",".join(modes))
        elif not isinstance(module, Transformer | Normalize):
            names.append(type(module).__name__)
    return "+".join(names)


def unusable(resolved: ResolvedModel, why: str) -> RagError:
    return Unsupported(
        f"The model {resolved.name!r} at {resolved.path} cannot be used: {why}. Choose another model.",
        code="unusable_model",
        param="model",
    )
