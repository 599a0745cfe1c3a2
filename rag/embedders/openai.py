"""Embeddings from any endpoint that speaks OpenAI's `/embeddings`, hosted or self-hosted, through the official SDK.

An answer is not taken on trust: rows out of order, doubled, missing, of another width, not finite or without a
direction would put vectors under the wrong texts, silently. Each is an error that names the endpoint and the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import ChangeRequest, RagError, TryLater
from rag.embedders import EmbedderSpec, too_long
from rag.provider import HOSTED, Provider
from rag.spaces import Space
from rag.tokenizers import open_tokenizer, plain

TOKEN_LIMIT = 8191
BATCH_TEXTS = 64
REQUEST_TOKENS = 250_000
"""Tokens of one request; the hosted service takes 300,000 at most."""


class OpenAIEmbedder:
    """One alias's endpoint under the contract of `Embedder`. Rows are brought to unit length here."""

    build = "remote"
    agreement = None

    def __init__(self, spec: EmbedderSpec) -> None:
        """Connects on first use, which is here when the spec names no dimension: it is then asked for once.

        Raises TryLater for a key that the environment lacks, or when the endpoint cannot be asked; ChangeRequest when
        the prefixes leave no room for a text.
        """
        self._spec = spec
        who = f"The embeddings endpoint {spec.base_url or HOSTED} (model {spec.model!r})"
        self._provider = Provider(spec, f"embedders.{spec.name}", f"The embedder {spec.name!r}", who)
        self._client = self._provider.client()
        try:
            self.tokenizer = open_tokenizer(spec.tokenizer or "cl100k_base")
            self.space = self._describe()
            self.limit = self._room()
        except RagError:
            self.close()
            raise

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), unit length.

        Raises ChangeRequest (`text_too_long`, `wrong_dimension`, `embedder_refused`), TryLater when the endpoint is
        overloaded, unreachable, too slow (after the retries) or answers with something else than it was asked for.
        """
        return self._embed(texts, self.space.document_prefix)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same with the query's prefix."""
        return self._embed(texts, self.space.query_prefix)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._client.close()

    def _embed(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        rows = np.empty((len(texts), self.space.dimension), dtype=np.float32)
        done = 0
        for batch in self._batches(texts):
            # Endpoints refuse the empty string; a space means as little.
            vectors = self._request([plain(prefix + text) or " " for text in batch])
            rows[done : done + len(batch)] = self._checked(vectors)
            done += len(batch)
        return rows

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        counts = [self.tokenizer.count(text) for text in texts]
        longest = max(counts, default=0)
        if longest > self.limit:
            raise too_long(self._spec.name, longest, self.limit)
        batch: list[str] = []
        tokens = 0
        for text, count in zip(texts, counts, strict=True):
            if batch and (len(batch) == (self._spec.batch_size or BATCH_TEXTS) or tokens + count > REQUEST_TOKENS):
                yield batch
                batch, tokens = [], 0
            batch.append(text)
            tokens += count
        if batch:
            yield batch

    def _describe(self) -> Space:
        return Space(
            provider="openai",
            model=self._spec.model,
            revision="",
            dimension=self._spec.dimension or self._numbers(self._request(["dimension"]))[0].size,
            pooling="",
            normalised=True,
            document_prefix=self._spec.document_prefix or "",
            query_prefix=self._spec.query_prefix or "",
            token_limit=self._spec.token_limit or TOKEN_LIMIT,
        )

    def _room(self) -> int:
        prefixes = (self.space.document_prefix, self.space.query_prefix)
        room = self.space.token_limit - max(self.tokenizer.count(prefix) for prefix in prefixes)
        if room < 1:
            raise ChangeRequest(f"The prefixes of {self._spec.name!r} fill its whole limit.", code="invalid_settings")
        return room

    def _request(self, texts: list[str]) -> list[Any]:
        """The vectors of these texts, in order, as they came."""
        from openai import OpenAIError

        try:
            response = self._client.embeddings.create(model=self._spec.model, input=texts)
            rows = {row.index: row.embedding for row in response.data}
            received = len(response.data)
        except OpenAIError as error:
            raise self._provider.translated(error, refused="embedder_refused", nonsense="bad_embeddings") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:  # the SDK does not validate
            raise TryLater(f"{self._provider.who} sent something that is no answer.", code="bad_embeddings") from error
        if received != len(texts) or rows.keys() != set(range(len(texts))):
            raise TryLater(
                f"{self._provider.who} answered {len(texts)} texts with {received} rows of {len(rows)} different "
                "numbers, so no one knows which vector is whose. Nothing was kept.",
                code="bad_embeddings",
            )
        return [rows[index] for index in range(len(texts))]

    def _numbers(self, vectors: list[Any]) -> list[NDArray[np.float64]]:
        try:
            rows = [np.asarray(vector, dtype=np.float64) for vector in vectors]
        except (ValueError, TypeError) as error:
            raise TryLater(f"{self._provider.who} sent rows that are no vectors.", code="bad_embeddings") from error
        if not all(row.ndim == 1 and row.size for row in rows):
            raise TryLater(f"{self._provider.who} sent rows that are no vectors.", code="bad_embeddings")
        return rows

    def _checked(self, vectors: list[Any]) -> NDArray[np.float32]:
        rows = self._numbers(vectors)
        widths = {len(row) for row in rows}
        if widths != {self.space.dimension}:
            raise ChangeRequest(
                f"{self._provider.who} sent vectors of {', '.join(map(str, sorted(widths)))} dimensions where "
                f"{self.space.dimension} are expected. Has the model behind it changed?",
                code="wrong_dimension",
            )
        wide = np.stack(rows)
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise TryLater(
                f"{self._provider.who} sent a vector that is not finite or has no direction. Nothing was kept.",
                code="bad_embeddings",
            )
        unit: NDArray[np.float32] = (wide / norms).astype(np.float32)
        return unit
