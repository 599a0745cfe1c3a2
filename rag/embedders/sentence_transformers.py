"""Embeddings by a sentence-transformers model on this machine: by its fastest build that agrees with the original.

`auto` compiles the model once (`rag.embedders.compiled`) and runs that with onnxruntime; torch is then not imported.
What cannot be had is said in the log, and the slower way gives the same answers.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest
from rag.embedders import EmbedderSpec, compiled, too_long
from rag.embedders.agreement import Agreement
from rag.embedders.compiled import Manifest
from rag.embedders.encoder import Encoder, ModelFacts
from rag.embedders.model_files import ResolvedModel, resolve_model
from rag.spaces import Space
from rag.tokenizers import HuggingFaceTokenizer, plain

log = logging.getLogger(__name__)


class SentenceTransformersEmbedder:
    """One model under the contract of `Embedder`."""

    def __init__(self, spec: EmbedderSpec) -> None:
        """Opens the model; the first time on a machine it is compiled, which takes half a minute.

        Raises what `resolve_model` raises, and ChangeRequest or Unsupported for a model that cannot be used as asked.
        """
        resolved = resolve_model(spec.model, download=True)
        self._encoder, self.agreement = _open_encoder(spec, resolved)
        self.build = self._encoder.build
        tokenizer = self._encoder.tokenizer
        self._special_tokens = tokenizer.num_special_tokens_to_add(False)
        self.tokenizer = HuggingFaceTokenizer(tokenizer, resolved.name)
        self.space = _space(spec, resolved, self._encoder.facts)
        prefixes = (self.space.document_prefix, self.space.query_prefix)
        self._prefix_tokens = {prefix: self.tokenizer.count(prefix) for prefix in prefixes}
        self._longest_prefix = max(self._prefix_tokens.values())
        self.limit = self.space.token_limit - self._special_tokens - self._longest_prefix
        if self.limit < 1:
            raise ChangeRequest(f"The prefixes of {spec.name!r} fill its whole limit.", code="invalid_settings")

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), unit length. Raises ChangeRequest (`text_too_long`)."""
        return self._embed(texts, self.space.document_prefix)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same with the query's prefix."""
        return self._embed(texts, self.space.query_prefix)

    def close(self) -> None:
        """Let go of the encoder's threads. Idempotent."""
        self._encoder.close()

    def _embed(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        ids = self._tokenize([prefix + text for text in texts])
        self._refuse_long(texts, ids, prefix)
        return self._encoder.encode(ids, self._prefix_tokens[prefix])

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids with special tokens, never cut; the form without offsets is twice as fast."""
        return [encoding.ids for encoding in self._encoder.tokenizer.encode_batch_fast([plain(text) for text in texts])]

    def _refuse_long(self, texts: Sequence[str], ids: list[list[int]], prefix: str) -> None:
        """By the pass already made; a text is counted again only when the prefix may have melted into it."""
        ceiling = self.space.token_limit - self._longest_prefix + self._prefix_tokens[prefix]
        for text, row in zip(texts, ids, strict=True):
            if len(row) <= ceiling:
                continue
            tokens = self.tokenizer.count(text) if prefix else len(row) - self._special_tokens
            if tokens > self.limit or len(row) > self.space.token_limit:
                raise too_long(self.space.model, tokens, self.limit)


# ---- which build ----------------------------------------------------------------------------------------------------


def _open_encoder(spec: EmbedderSpec, resolved: ResolvedModel) -> tuple[Encoder, Agreement | None]:
    """The encoder and its agreement with the original, which is None for the original itself."""
    spec = _on_a_device_that_is_there(spec)
    if spec.build != "torch" and _has_runtime(spec):
        found = compiled.obtain(compiled.order_of(spec, resolved), resolved.path)
        if found is not None:
            manifest, files = found
            if manifest.why:
                log.warning("The model %s is computed as %s: %s.", resolved.name, manifest.build, manifest.why)
            if manifest.agreement is not None:
                return _compiled_encoder(spec, manifest, files), manifest.agreement
    return _torch_encoder(spec, resolved), None


def _on_a_device_that_is_there(spec: EmbedderSpec) -> EmbedderSpec:
    if spec.device in (None, "cpu"):
        return spec
    from rag.embedders.torch_encoder import has_device

    if has_device(spec.device):
        return replace(spec, build="torch")
    log.warning(
        "The embedder %r asks for the device %r, which is not there. The processor computes the same vectors, slower.",
        spec.name,
        spec.device,
    )
    return replace(spec, device="cpu")


def _has_runtime(spec: EmbedderSpec) -> bool:
    if importlib.util.find_spec("onnxruntime") is not None:
        return True
    log.warning(
        "The package onnxruntime is not installed (pip install onnxruntime): the embedder %r is computed by torch, "
        "which gives the same answers more slowly.",
        spec.name,
    )
    return False


def _compiled_encoder(spec: EmbedderSpec, manifest: Manifest, files: Mapping[str, bytes]) -> Encoder:
    import tokenizers

    from rag.embedders.onnx_encoder import OnnxEncoder

    # Each call would hand even one text to threads of the tokenizer's own and wait for them: that takes half as much
    # time again, and several times as much where every core computes a model.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = tokenizers.Tokenizer.from_buffer(files[compiled.TOKENIZER])
    return OnnxEncoder(manifest.build, files[compiled.MODEL], manifest.facts, tokenizer, spec.threads)


def _torch_encoder(spec: EmbedderSpec, resolved: ResolvedModel) -> Encoder:
    from rag.embedders.torch_encoder import TorchEncoder

    return TorchEncoder(
        resolved, pooling=spec.pooling, device=spec.device, threads=spec.threads, batch_size=spec.batch_size
    )


# ---- the space ------------------------------------------------------------------------------------------------------


def _space(spec: EmbedderSpec, resolved: ResolvedModel, facts: ModelFacts) -> Space:
    if spec.dimension not in (None, facts.dimension):
        raise ChangeRequest(
            f"The model {resolved.name!r} makes vectors of {facts.dimension} dimensions, not {spec.dimension}.",
            code="wrong_dimension",
            param="dimension",
        )
    if spec.token_limit and facts.positions and spec.token_limit > facts.positions:
        raise ChangeRequest(
            f"The model {resolved.name!r} has {facts.positions} positions, too few for a limit of {spec.token_limit}.",
            code="invalid_settings",
            param="token_limit",
        )
    return Space(
        provider="sentence-transformers",
        model=resolved.name,
        revision=resolved.weights_sha256,
        dimension=facts.dimension,
        pooling=facts.pooling,
        normalised=True,
        document_prefix=facts.document_prefix if spec.document_prefix is None else spec.document_prefix,
        query_prefix=facts.query_prefix if spec.query_prefix is None else spec.query_prefix,
        token_limit=spec.token_limit or facts.token_limit,
    )
