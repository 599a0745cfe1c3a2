"""Embedders that are wrong on purpose, each in one way; the contract must catch every one."""

from __future__ import annotations

import secrets
import threading
from dataclasses import asdict, dataclass, replace

import numpy as np

from indexes.errors import ChangeRequest
from rag.embedders import too_long
from rag.embedders.toy import ToyEmbedder
from rag.spaces import Space

BATCH = 4


class HonestEmbedder(ToyEmbedder):
    """The toy with what others have beside it: prefixes, a limit of its own, batches of similar length."""

    def __init__(self, spec):
        super().__init__(replace(spec, model="toy-256"))
        self.model = spec.model
        self.space = self.described(spec)
        self.limit = self.room()

    def described(self, spec):
        return replace(
            self.space,
            model=spec.model,
            token_limit=spec.token_limit or 60,
            document_prefix=spec.document_prefix,
            query_prefix=spec.query_prefix,
        )

    def room(self):
        prefixes = (self.space.document_prefix, self.space.query_prefix)
        return self.space.token_limit - max(map(self.tokenizer.count, prefixes))

    def embed_documents(self, texts):
        return self.embedded(texts, self.space.document_prefix)

    def embed_queries(self, texts):
        return self.embedded(texts, self.space.query_prefix)

    def embedded(self, texts, prefix):
        for text in texts:
            self.refuse_long(text)
        rows = np.empty((len(texts), self.space.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for start in range(0, len(texts), BATCH):
            batch = order[start : start + BATCH]
            rows[batch] = self.forward([prefix + texts[at] for at in batch])
        return rows

    def refuse_long(self, text):
        if (tokens := self.tokenizer.count(text)) > self.limit:
            raise too_long(self.model, tokens, self.limit)

    def forward(self, texts):
        return super().embed_documents(texts)


class OneRowSwapped(HonestEmbedder):
    def forward(self, texts):
        rows = super().forward(texts)
        rows[:2] = rows[:2][::-1].copy()
        return rows


class NotPutBackInOrder(HonestEmbedder):
    def embedded(self, texts, prefix):
        return super().embedded(sorted(texts, key=len), prefix)


class SecondBatchReversed(HonestEmbedder):
    def embedded(self, texts, prefix):
        rows = super().embedded(texts, prefix)
        rows[BATCH : 2 * BATCH] = rows[BATCH : 2 * BATCH][::-1].copy()
        return rows


class RaggedBatchLost(HonestEmbedder):
    """The last batch, when it is not full, keeps what lay in the memory."""

    def embedded(self, texts, prefix):
        rows = super().embedded(texts, prefix)
        if ragged := len(texts) % BATCH if len(texts) > BATCH else 0:
            rows[-ragged:] = rows[0]
        return rows


class PaddedByItsNeighbours(HonestEmbedder):
    """The longest text of a batch shines through in the others, as where padding is not masked."""

    def forward(self, texts):
        rows = super().forward(texts) + np.float32(0.01) * super().forward([max(texts, key=len)])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class NotNormalised(HonestEmbedder):
    def forward(self, texts):
        return super().forward(texts) * np.array([[1 + len(text)] for text in texts], dtype=np.float32)


class NormalisedTogether(HonestEmbedder):
    def embedded(self, texts, prefix):
        rows = super().embedded(texts, prefix)
        return rows / max(np.linalg.norm(rows), 1e-9).astype(np.float32) if len(rows) else rows


class Doubles(HonestEmbedder):
    def embedded(self, texts, prefix):
        return super().embedded(texts, prefix).astype(np.float64)


class HalfPrecision(HonestEmbedder):
    """Right in kind and length, but rounded on the way."""

    def forward(self, texts):
        rows = super().forward(texts).astype(np.float16).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class ListOfRows(HonestEmbedder):
    def embedded(self, texts, prefix):
        return list(super().embedded(texts, prefix))


class OneNumberShort(HonestEmbedder):
    def embedded(self, texts, prefix):
        rows = super().embedded(texts, prefix)[:, :-1]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class FlatForOne(HonestEmbedder):
    def embedded(self, texts, prefix):
        rows = super().embedded(texts, prefix)
        return rows[0] if len(texts) == 1 else rows


class ShapelessForNone(HonestEmbedder):
    def embedded(self, texts, prefix):
        return super().embedded(texts, prefix) if len(texts) else np.empty(0, dtype=np.float32)


class OneShort(HonestEmbedder):
    def embedded(self, texts, prefix):
        return super().embedded(texts[: max(len(texts) - 1, 1)], prefix)


class DuplicatesDropped(HonestEmbedder):
    def embedded(self, texts, prefix):
        return super().embedded(list(dict.fromkeys(texts)), prefix)


class TruncatesSilently(HonestEmbedder):
    def embedded(self, texts, prefix):
        cut = [text[: self.tokenizer.offsets(text)[: self.limit][-1][1]] if text else text for text in texts]
        return super().embedded(cut, prefix)


class CutsTheLastToken(HonestEmbedder):
    """Of a text as long as it may be."""

    def embedded(self, texts, prefix):
        full = self.limit
        return super().embedded([text[:-2] if self.tokenizer.count(text) == full else text for text in texts], prefix)


class CutsTheBeginning(HonestEmbedder):
    def forward(self, texts):
        return super().forward([text if len(text) < 100 else text[-98:] for text in texts])


class RefusesAtTheLimit(HonestEmbedder):
    def refuse_long(self, text):
        if (tokens := self.tokenizer.count(text)) >= self.limit:
            raise too_long(self.model, tokens, self.limit)


class RefusesTheFirstAlone(HonestEmbedder):
    """Only the first text of a call is counted."""

    def embedded(self, texts, prefix):
        for text in texts[:1]:
            self.refuse_long(text)
        self.refuse_long, honest = lambda _: None, self.refuse_long
        try:
            return super().embedded(texts, prefix)
        finally:
            self.refuse_long = honest


class RefusesWithAnotherCode(HonestEmbedder):
    def refuse_long(self, text):
        if self.tokenizer.count(text) > self.limit:
            raise ChangeRequest("This is too long.")


class CountsCharacters(HonestEmbedder):
    def refuse_long(self, text):
        if len(text) > self.limit:
            raise too_long(self.model, len(text), self.limit)


class LimitWithoutThePrefix(HonestEmbedder):
    def room(self):
        return self.space.token_limit


class LimitByTheShorterPrefix(HonestEmbedder):
    def room(self):
        prefixes = (self.space.document_prefix, self.space.query_prefix)
        return self.space.token_limit - min(map(self.tokenizer.count, prefixes))


class PrefixForgotten(HonestEmbedder):
    def embed_documents(self, texts):
        return self.embedded(texts, "")


class QueriesAreDocuments(HonestEmbedder):
    def embed_queries(self, texts):
        return self.embed_documents(texts)


class PrefixesExchanged(HonestEmbedder):
    def embed_documents(self, texts):
        return super().embed_queries(texts)

    def embed_queries(self, texts):
        return super().embed_documents(texts)


class PrefixOnTheFirstAlone(HonestEmbedder):
    def embedded(self, texts, prefix):
        return super().embedded([prefix + text if at == 0 else text for at, text in enumerate(texts)], "")


class PrefixOfTheLastCall(HonestEmbedder):
    """What was asked for before leaks into what is asked for now."""

    def embedded(self, texts, prefix):
        self.before, before = prefix, getattr(self, "before", prefix)
        return super().embedded(texts, before)


class NothingForBlank(HonestEmbedder):
    def forward(self, texts):
        rows = super().forward(texts)
        rows[[at for at, text in enumerate(texts) if not text.removeprefix(self.space.query_prefix).strip()]] = np.nan
        return rows


class StumblesOverSurrogates(HonestEmbedder):
    def forward(self, texts):
        return super().forward([text.encode().decode() for text in texts])


class StripsAndFolds(HonestEmbedder):
    """Takes what it cannot read for nothing: everything outside of ASCII."""

    def forward(self, texts):
        return super().forward([text.encode("ascii", "ignore").decode() for text in texts])


class ForgetsNothing(HonestEmbedder):
    """Keeps rows by text alone, whatever stood before it."""

    def __init__(self, spec):
        super().__init__(spec)
        self.kept = {}

    def embedded(self, texts, prefix):
        rows = super().embedded(texts, prefix)
        for at, text in enumerate(texts):
            rows[at] = self.kept.setdefault(text, rows[at].copy())
        return rows


class LendsItsMemory(HonestEmbedder):
    """Keeps the very array that it hands out."""

    def __init__(self, spec):
        super().__init__(spec)
        self.kept = {}

    def embedded(self, texts, prefix):
        key = (tuple(texts), prefix)
        if key not in self.kept:
            self.kept[key] = super().embedded(texts, prefix)
        return self.kept[key]


class Drifts(HonestEmbedder):
    """A little more noise with every call: it was left in training mode."""

    def forward(self, texts):
        self.calls = getattr(self, "calls", 0) + 1
        rows = super().forward(texts)
        rows[:, self.calls % 256] += np.float32(0.001)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class SharedBetweenThreads(HonestEmbedder):
    """One buffer for all callers."""

    def __init__(self, spec):
        super().__init__(spec)
        self.buffer = None
        self.turn = threading.Barrier(2)

    def embedded(self, texts, prefix):
        self.buffer = super().embedded(texts, prefix)
        if threading.current_thread() is not threading.main_thread():
            try:
                self.turn.wait(0.05)
            except threading.BrokenBarrierError:
                self.turn.reset()
        return self.buffer.copy()


@dataclass(frozen=True)
class ShortSighted(Space):
    """A space whose fingerprint leaves a field out."""

    blind: str = ""

    @property
    def fingerprint(self):
        fields = {name: getattr(self, name) for name in Space.__dataclass_fields__}
        fields[self.blind] = type(fields[self.blind])()
        return Space(**fields).fingerprint


def fingerprint_without(field):
    class Liar(HonestEmbedder):
        def described(self, spec):
            return ShortSighted(**asdict(super().described(spec)), blind=field)

    Liar.__name__ = f"FingerprintWithout_{field}"
    return Liar


class FingerprintOfTheMoment(HonestEmbedder):
    def described(self, spec):
        return replace(super().described(spec), revision=secrets.token_hex(4))


class AnotherDimensionInItsSpace(HonestEmbedder):
    def described(self, spec):
        return replace(super().described(spec), dimension=384)

    def embedded(self, texts, prefix):
        rows = np.empty((len(texts), 256), dtype=np.float32)
        for at, text in enumerate(texts):
            self.refuse_long(text)
            rows[at] = self.forward_there([prefix + text])
        return rows

    def forward_there(self, texts):
        self.space, space = replace(self.space, dimension=256), self.space
        try:
            return super().forward(texts)
        finally:
            self.space = space


LIARS = (
    *(kind for kind in list(globals().values()) if isinstance(kind, type) and HonestEmbedder in kind.__bases__),
    *map(fingerprint_without, ("model", "document_prefix", "query_prefix", "token_limit")),
)
