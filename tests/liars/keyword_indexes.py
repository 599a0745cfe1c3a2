"""Keyword indexes that are wrong on purpose, each in one way; the contract must catch every one."""

from __future__ import annotations

import numpy as np
import tantivy

from indexes.keyword import KeywordEntry
from indexes.tantivy import TantivyIndex
from indexes.vector import Hits


class DeletesAnUnsignedIdByTerm(TantivyIndex):
    """An int given for an unsigned field deletes nothing, and nothing says so."""

    def _delete(self, writer, ids):
        for id_ in ids:
            writer.delete_documents_by_term("id", id_)


class DeletesNothing(TantivyIndex):
    def remove(self, ids):
        pass


class RemembersRemovedTexts(TantivyIndex):
    """What was removed weighs in the rarity of words and in the mean length, until the engine happens to merge."""

    def compact(self):
        return False


class CompactsWhatIsNotCommitted(TantivyIndex):
    def compact(self):
        self._uncommitted = False
        return super().compact()


class AlwaysCompacting(TantivyIndex):
    def compact(self):
        super().compact()
        return True


class CommitLost(TantivyIndex):
    def commit(self):
        pass


class CommitsInMemoryOnly(TantivyIndex):
    """Forgets everything when it is closed."""

    def close(self):
        if self._index is not None:
            self.remove(range(1, 100))
            self.commit()
        super().close()


class CommitsAtOnce(TantivyIndex):
    def add(self, entries):
        super().add(entries)
        self.commit()


class KeepsTheFirstOfABatch(TantivyIndex):
    def add(self, entries):
        super().add(list(entries)[::-1])


class AllowedIgnored(TantivyIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, k)


class AllowedAfterTheTopK(TantivyIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, k)
        keep = np.isin(hits.ids, allowed) if allowed is not None else np.ones(len(hits.ids), dtype=bool)
        return Hits(hits.ids[keep], hits.scores[keep])


class LargeAllowedAfterTheTopK(TantivyIndex):
    def search(self, query, k, allowed=None):
        if allowed is None or len(allowed) < 1000:
            return super().search(query, k, allowed)
        return AllowedAfterTheTopK.search(self, query, k, allowed)


class AllowedChangesTheScore(TantivyIndex):
    """The set of ids in the query adds its own constant score."""

    def _among(self, words, ids):
        among = tantivy.Query.term_set_query(self._schema, "id", [int(id_) for id_ in ids if id_ > 0])
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, among), (tantivy.Occur.Must, words)])


class NothingAllowedMeansAll(TantivyIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, k, allowed if allowed is not None and len(allowed) else None)


class AlwaysEmpty(TantivyIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, 0)


class OneShort(TantivyIndex):
    def search(self, query, k, allowed=None):
        return super().search(query, max(k - 1, 0), allowed)


class WorstFirst(TantivyIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        return Hits(hits.ids[::-1], hits.scores[::-1])


class TiesAsTheyCome(TantivyIndex):
    """The engine's own order: by place in the segment."""

    def _deepen(self, searcher, query, k, allowed):
        from indexes.tantivy import _fetch

        hits = _fetch(searcher, query, 100_000)
        keep = np.isin(hits.ids, allowed) if allowed is not None else hits.scores > 0
        return Hits(hits.ids[keep][:k], hits.scores[keep][:k])


class EveryWordRequired(TantivyIndex):
    def _words(self, query):
        from indexes.words import analyse

        words = [(tantivy.Occur.Must, self._term(word)) for word in dict.fromkeys(analyse(query))]
        return tantivy.Query.boolean_query(words) if words else None


class CountsWordsInsteadOfWeighing(TantivyIndex):
    def _term(self, word):
        return tantivy.Query.const_score_query(super()._term(word), 1.0)


class RepeatedWordsCountAgain(TantivyIndex):
    def _words(self, query):
        from indexes.words import analyse

        words = [(tantivy.Occur.Should, self._term(word)) for word in analyse(query)]
        return tantivy.Query.boolean_query(words) if words else None


class ParsesTheQuestion(TantivyIndex):
    def _words(self, query):
        return self._index.parse_query(query, ["words"]) if query.strip() else None


class LeavesOutStopWords(TantivyIndex):
    def _words(self, query):
        return super()._words(" ".join(word for word in query.split() if word not in ("or", "and", "not")))


class DropsLongWords(TantivyIndex):
    def _document(self, entry):
        text = " ".join(word for word in entry.text.split() if len(word) < 40)
        return super()._document(KeywordEntry(entry.id, text, entry.heading))


class KnowsNoChinese(TantivyIndex):
    def _document(self, entry):
        return super()._document(KeywordEntry(entry.id, entry.text.encode("ascii", "ignore").decode(), entry.heading))


class HeadingIgnored(TantivyIndex):
    def _document(self, entry):
        return super()._document(KeywordEntry(entry.id, entry.text))


class DistanceForScore(TantivyIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        return Hits(hits.ids, 1 / (1 + hits.scores))


class NanForMissing(TantivyIndex):
    def scores(self, query, ids):
        scores = super().scores(query, ids)
        return np.where(scores == 0, np.float32(np.nan), scores)


class ScoresInIdOrder(TantivyIndex):
    def scores(self, query, ids):
        return super().scores(query, np.sort(ids))


class FrequencyOfOccurrences(TantivyIndex):
    """Counts removed texts, as the engine's own number does."""

    def document_frequency(self, words):
        return [self._searcher.doc_freq("words", word) for word in words]


class ContainsEverything(TantivyIndex):
    def contains(self, words, ids):
        return np.ones((len(words), len(ids)), dtype=np.bool_)


class ContainsInOrderOfScore(TantivyIndex):
    def contains(self, words, ids):
        return super().contains(words, np.sort(ids)[::-1])


class LengthOfAllEverAdded(TantivyIndex):
    added = 0

    def add(self, entries):
        super().add(entries)
        self.added += len(entries)

    def __len__(self):
        return self.added


class OneRowSwapped(TantivyIndex):
    """The first two texts of a batch go to each other's ids."""

    def add(self, entries):
        if len(entries) > 1:
            one, other, *rest = entries
            first, second = (
                KeywordEntry(one.id, other.text, other.heading),
                KeywordEntry(other.id, one.text, one.heading),
            )
            entries = [first, second, *rest]
        super().add(entries)


class NeverLooksAgain(TantivyIndex):
    """What the first search found there is all that later ones know."""

    def search(self, query, k, allowed=None):
        now, self._searcher = self._searcher, getattr(self, "seen", self._searcher)
        try:
            return super().search(query, k, allowed)
        finally:
            self.seen, self._searcher = self._searcher, now


class CaseMatters(TantivyIndex):
    """Words as they are written, neither folded nor stemmed."""

    def _document(self, entry):
        document = tantivy.Document()
        document.add_unsigned("id", entry.id)
        document.add_text("words", f"{entry.heading} {entry.text}".encode("utf-8", "ignore").decode())
        return document


class IdsAsFloats(TantivyIndex):
    def search(self, query, k, allowed=None):
        hits = super().search(query, k, allowed)
        return Hits(hits.ids.astype(np.float64).astype(np.int64), hits.scores)


LIARS = tuple(kind for kind in list(globals().values()) if isinstance(kind, type) and TantivyIndex in kind.__bases__)
