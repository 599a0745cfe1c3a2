"""Vector indexes that are wrong on purpose, each in one way; the contract must catch every one."""

from __future__ import annotations

import numpy as np

from indexes.checks import best, cosines
from indexes.flat import FlatIndex
from indexes.vector import Hits


class DistanceForScore(FlatIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        return Hits(hits.ids, np.sqrt(np.maximum(0, 2 - 2 * hits.scores)).astype(np.float32))


class FarthestFirst(FlatIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, len(self), allowed)
        return Hits(hits.ids[::-1][:k], hits.scores[::-1][:k])


class WorstOfTheTopFirst(FlatIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        return Hits(hits.ids[::-1], hits.scores[::-1])


class AnythingGoes(FlatIndex):
    """Checks no input and multiplies whatever it was given."""

    def add(self, ids, vectors):
        held, matrix = self._without(ids)
        order = np.argsort(together := np.concatenate([held, ids]))
        self._held = together[order], np.concatenate([matrix, vectors])[order].astype(np.float32)


class UncheckedQuery(FlatIndex):
    def search(self, query, k, allowed=None):
        with np.errstate(all="ignore"):
            query = np.resize(np.nan_to_num(query, nan=1.0), self.dimension)
            return super().search(
                query / (np.linalg.norm(query) or 1) + (not query.any()) * np.eye(1, 8)[0], k, allowed
            )


class UnclippedScores(FlatIndex):
    """As a bare float32 product is: a little more than one, when the lengths are."""

    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        return Hits(hits.ids, hits.scores * np.float32(np.linalg.norm(query)))


class AllowedIgnored(FlatIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, k)


class AllowedAfterTheTopK(FlatIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, k)
        keep = np.isin(hits.ids, allowed) if allowed is not None else np.ones(len(hits.ids), dtype=bool)
        return Hits(hits.ids[keep], hits.scores[keep])


class NothingAllowedMeansAll(FlatIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, k, allowed if allowed is not None and len(allowed) else None)


class AllowedTakenAsHits(FlatIndex):
    """Pads with ids that are allowed but not there."""

    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        if allowed is None:
            return hits
        absent = np.setdiff1d(allowed, self.ids())[: k - len(hits.ids)]
        return Hits(np.concatenate([hits.ids, absent]), np.pad(hits.scores, (0, len(absent))))


class AlwaysEmpty(FlatIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, 0, allowed)


class OneShort(FlatIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, max(k - 1, 0), allowed)


class OneTooMany(FlatIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, k + 1, allowed)


class DeletesNothing(FlatIndex):
    def remove(self, ids):
        pass


class DeletesOnlyOne(FlatIndex):
    def remove(self, ids):
        super().remove(ids[:1])


class DeletedStillScored(FlatIndex):
    def remove(self, ids):
        self.before = self._held
        super().remove(ids)

    def scores(self, query, ids):
        now, self._held = self._held, getattr(self, "before", self._held)
        try:
            return super().scores(query, ids)
        finally:
            self._held = now


class DeletedForGood(FlatIndex):
    """What was removed once can never come back."""

    def __init__(self, dimension):
        super().__init__(dimension)
        self.gone = np.empty(0, dtype=np.int64)

    def remove(self, ids):
        self.gone = np.union1d(self.gone, ids)
        super().remove(ids)

    def add(self, ids, vectors):
        super().add(ids, vectors)
        super().remove(self.gone)


class KeepsTheOldOnReplacement(FlatIndex):
    def add(self, ids, vectors):
        new = ~np.isin(ids, self.ids())
        super().add(
            np.asarray(ids)[new] if len(ids) == len(vectors) else ids,
            vectors[new] if len(ids) == len(vectors) else vectors,
        )


class ReplacementDuplicates(FlatIndex):
    def _without(self, ids):
        return self._held


class TiesByInsertion(FlatIndex):
    def __init__(self, dimension):
        super().__init__(dimension)
        self.arrival = {}

    def add(self, ids, vectors):
        super().add(ids, vectors)
        for id_ in ids:
            self.arrival.setdefault(int(id_), len(self.arrival))

    def search(self, query, k, allowed=None):
        hits = super().search(query, len(self), allowed)
        order = sorted(range(len(hits.ids)), key=lambda at: (-hits.scores[at], self.arrival[int(hits.ids[at])]))[:k]
        return Hits(hits.ids[order], hits.scores[order])


class TiesLostAtTheLastPlace(FlatIndex):
    """The top k by an unstable choice, then neatly ordered: what sorting an engine's own answer gives."""

    def search(self, query, k, allowed=None):
        hits = super().search(query, len(self), allowed)
        inside = np.lexsort((-hits.ids, -hits.scores))[:k]
        return best(hits.ids[inside], hits.scores[inside], k)


class ZeroForMissing(FlatIndex):
    def scores(self, query, ids):
        return np.nan_to_num(super().scores(query, ids))


class MissingLeftOut(FlatIndex):
    def scores(self, query, ids):
        scores = super().scores(query, ids)
        return scores[~np.isnan(scores)]


class ScoresInIdOrder(FlatIndex):
    def scores(self, query, ids):
        return super().scores(query, np.sort(ids))


class IdsByArrival(FlatIndex):
    def ids(self):
        return self._held[0][::-1].copy()


class IdsAsFloats(FlatIndex):
    """Loses the last digit of a large id on the way."""

    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        return Hits(hits.ids.astype(np.float64).astype(np.int64), hits.scores)


class KeepsTheCallersArray(FlatIndex):
    def add(self, ids, vectors):
        super().add(ids, vectors)
        if len(vectors) == 30:
            self.borrowed = vectors

    def search(self, query, k, allowed=None):
        if allowed is None and hasattr(self, "borrowed"):
            return best(self.ids(), cosines(self.borrowed[::-1], query), k)
        return super().search(query, k, allowed)


class HalfOfABadBatch(FlatIndex):
    """Keeps the good rows of a batch before it refuses the bad one."""

    def add(self, ids, vectors):
        try:
            super().add(ids, vectors)
        except Exception:
            if np.shape(vectors)[1] == self.dimension:
                super().add(ids[:1], vectors[:1])
            raise


class OneRowSwapped(FlatIndex):
    """The first two vectors of a batch go to each other's ids."""

    def add(self, ids, vectors):
        swapped = np.array(vectors)
        swapped[:2] = swapped[:2][::-1].copy()
        super().add(ids, swapped)


class NeverLooksAgain(FlatIndex):
    """What the first search found there is all that later ones know."""

    def search(self, query, k, allowed=None):
        now, self._held = self._held, getattr(self, "seen", self._held)
        try:
            return super().search(query, k, allowed)
        finally:
            self.seen, self._held = self._held, now


class TakesNothing(FlatIndex):
    def memory(self):
        return 0


class TakesWhatItsVectorsWouldInFull(FlatIndex):
    """As if a value were 16 bytes."""

    def memory(self):
        return 4 * super().memory()


class CountsNoValues(FlatIndex):
    def memory(self):
        return 2_000 * bool(len(self)) + len(self)


class ClosesOnce(FlatIndex):
    def close(self):
        del self._held


LIARS = tuple(kind for kind in list(globals().values()) if isinstance(kind, type) and FlatIndex in kind.__bases__)
