"""A BERT small enough for tests, and what it makes of a text, computed by `transformers` alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rag.embedders.model_files import resolve_model


def build_bert(
    folder: Path,
    *,
    prompts: dict[str, str] | None = None,
    pooling: str = "cls",
    positions: int = 64,
    seed: int = 7,
    spread: float = 0.5,
) -> tuple[Path, Any]:
    """A random two-layer BERT of 32 dimensions, saved as sentence-transformers saves a model: its folder, and it.

    `spread` is the standard deviation of its weights; at 0.5 it is too wild to be rounded, at 0.2 tame enough.
    """
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.manual_seed(seed)
    raw = folder / "raw"
    transformers.BertModel(_config(positions, spread)).save_pretrained(raw)
    _copy_words(raw)
    model = SentenceTransformer(modules=[Transformer(str(raw)), Pooling(32, pooling)], prompts=prompts, device="cpu")
    path = folder / "tiny-bert"
    model.save_pretrained(str(path), create_model_card=False)
    shutil.rmtree(raw)
    return path, model


def build_cross_encoder(folder: Path, *, positions: int = 64, labels: int = 1, seed: int = 7) -> Path:
    """A random BERT of that size that gives a pair of texts a score, as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = _config(positions)
    config.num_labels = labels
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    _copy_words(folder)
    return folder


def _config(positions: int, spread: float = 0.5) -> Any:
    import transformers

    return transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=spread,
    )


def _copy_words(folder: Path) -> None:
    packaged = resolve_model("all-MiniLM-L6-v2").path
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(packaged / name, folder / name)


class BertByHand:
    """One text at a time, so without padding and batches; the token vectors pooled here."""

    def __init__(self, folder: Path, pooling: str) -> None:
        import transformers

        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._model = transformers.AutoModel.from_pretrained(folder).eval()
        self._pooling = pooling
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, text: str) -> np.ndarray:
        """The vector of a text, of any length; kept, since checks ask for the same ones again."""
        if text not in self._known:
            self._known[text] = self._pooled(text)
        return self._known[text]

    def _pooled(self, text: str) -> np.ndarray:
        import torch

        ids = self._tokenizer(text, return_tensors="pt", truncation=False, verbose=False)
        with torch.inference_mode():
            tokens = self._model(**ids).last_hidden_state[0].double().numpy()
        pooled: np.ndarray = {"mean": tokens.mean(axis=0), "cls": tokens[0], "max": tokens.max(axis=0)}[self._pooling]
        return pooled
