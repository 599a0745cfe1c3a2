"""The default keyword index: tantivy, in a folder of its own.

Words are analysed by `indexes.words` and handed over joined by spaces, so that tantivy cuts at white space only: its
own tokenizers drop long words and know no Chinese. Questions become term queries, never query syntax.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray

from indexes.checks import best, checked_count, rounded
from indexes.errors import ChangeRequest, TryLater
from indexes.keyword import KeywordEntry
from indexes.vector import Hits, Ids
from indexes.words import WORDS_VERSION, analyse

LAYOUT = 2
"""Changes with the schema below."""

SETTINGS_FILE = "words.json"
WRITER_BYTES = 30_000_000

SMALL_SET = 10_000
"""Up to this many allowed ids go into the query as a set of terms (10 ms); more are picked out of a deeper ranking."""

FEW_IDS = 1_000
"""Up to this many ids are looked up one by one, several times as fast as a set of terms: .06, .2, .6 and 2 ms for 14,
100, 300 and 1,000 ids against .4, 1.0, 1.5 and 2; from there on the set wins."""

WORDS_AT_ONCE = 20
"""Powers of two that a float32 adds up exactly."""

SMALL = 10_000
"""Up to this many texts the writer is given up after each commit: opening one takes a millisecond, and an open one
holds six threads and as many megabytes, which thousands of small indexes must not."""

WRITTEN_ANEW = 2_000
"""Texts that a step of `compact` writes anew, in about a tenth of a second."""

EXTRA = 16
"""Hits fetched beyond k, so that the few that tie with the k-th need no second look."""


class TantivyIndex:
    """A `KeywordIndex` on one text field, the heading's words in front of the text's.

    BM25 with k1 = 1.2, b = 0.75; lengths are kept in one byte (exact up to 40 words). A removed text counts in the
    statistics while its segment lives, and the engine does not merge one for that: `compact` writes the texts that are
    left in such a segment anew, from their analysed words, which are stored for it (some 400 bytes a text of 120 words;
    analysing again would take ten times as long). One process at a time may change a folder.
    """

    average_words = None

    def __init__(self, folder: Path, language: str = "english") -> None:
        """Open the index in `folder`, or make one there. `language` names the stemmer (`indexes.words`).

        Raises ChangeRequest (`index_unreadable`) for a folder that another analysis or layout made, or that is damaged.
        """
        self._folder = Path(folder)
        self._language = language
        self._schema = _schema()
        self._index: Any = _open(
            self._folder, self._schema, {"layout": LAYOUT, "words": WORDS_VERSION, "language": language}
        )
        self._searcher: Any = self._index.searcher()
        self._writer: Any = None
        self._uncommitted = False
        self._changing = threading.Lock()

    def add(self, entries: Sequence[KeywordEntry]) -> None:
        """See `KeywordIndex.add`. Raises ChangeRequest (`wrong_ids`) for an id below 1, TryLater as `commit`."""
        newest = {entry.id: entry for entry in entries}
        if any(id_ < 1 for id_ in newest):
            raise ChangeRequest(f"Ids are positive; {min(newest)} was given.", code="wrong_ids")
        documents = [self._document(entry) for entry in newest.values()]
        with self._changing:
            self._replace(list(newest), documents)

    def remove(self, ids: Ids) -> None:
        """See `KeywordIndex.remove`. Raises TryLater as `commit`."""
        with self._changing:
            self._replace([int(id_) for id_ in ids if id_ > 0], [])

    def commit(self) -> None:
        """See `KeywordIndex.commit`. Raises TryLater (`index_write_failed`) when that fails."""
        with self._changing:
            if self._writer is not None:
                self._commit()

    def compact(self) -> bool:
        """See `KeywordIndex.compact`. Raises TryLater as `commit`."""
        with self._changing:
            if self._uncommitted or self._index is None:
                return False
            addresses = self._beside_removed()
            if not addresses:
                return False
            ids = self._searcher.fast_field_values("id", addresses)
            words = [self._searcher.doc(address).get_first("words") for address in addresses]
            self._replace(ids, [_document(id_, text) for id_, text in zip(ids, words, strict=True)])
            self._commit()
            return True

    def search(self, query: str, k: int, allowed: Ids | None = None) -> Hits:
        """See `KeywordIndex.search`."""
        k = checked_count(k)
        searcher, words = self._searcher, self._words(query)
        if not k or words is None:
            return _no_hits()
        if allowed is not None and len(allowed) <= SMALL_SET:
            return self._deepen(searcher, self._among(words, allowed), k, None)
        return self._deepen(searcher, words, k, allowed)

    def scores(self, query: str, ids: Ids) -> NDArray[np.float32]:
        """See `KeywordIndex.scores`."""
        searcher, words = self._searcher, self._words(query)
        scores = np.zeros(len(ids), dtype=np.float32)
        if words is None or not len(ids):
            return scores
        hits = _fetch(searcher, self._among(words, ids), len(ids))
        score_of = dict(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))
        return np.array([score_of.get(int(id_), 0.0) for id_ in ids], dtype=np.float32)

    def contains(self, words: Sequence[str], ids: Ids) -> NDArray[np.bool_]:
        """See `KeywordIndex.contains`. One search for some words: each adds its own power of two to a text's score."""
        searcher = self._searcher
        found = np.zeros((len(words), len(ids)), dtype=np.bool_)
        if not len(ids) or not searcher.num_docs:
            return found
        order = np.argsort(ids, kind="stable")
        for start in range(0, len(words), WORDS_AT_ONCE):
            some = words[start : start + WORDS_AT_ONCE]
            bits = [
                (tantivy.Occur.Should, tantivy.Query.const_score_query(self._term(word), float(1 << bit)))
                for bit, word in enumerate(some)
            ]
            hits = searcher.search(self._among(tantivy.Query.boolean_query(bits), ids), len(ids), count=False).hits
            if hits:
                hit_ids = np.array(searcher.fast_field_values("id", [address for _, address in hits]), dtype=np.int64)
                masks = np.array([score for score, _ in hits]).round().astype(np.int64)
                places = order[np.searchsorted(ids, hit_ids, sorter=order)]
                found[start : start + len(some), places] = (masks >> np.arange(len(some))[:, None]) & 1
        return found

    def document_frequency(self, words: Sequence[str]) -> list[int]:
        """See `KeywordIndex.document_frequency`. Counted by a search: tantivy's own number includes removed texts."""
        return [self._searcher.search(self._term(word), 1).count for word in words]

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def close(self) -> None:
        """See `KeywordIndex.close`. Changes that were not committed are dropped.

        The last searcher stays: a search that is under way in another thread ends as it would have.
        """
        with self._changing:
            writer, self._writer = self._writer, None
            self._index = None
            if writer is not None:
                writer.rollback()
                writer.wait_merging_threads()

    def _document(self, entry: KeywordEntry) -> Any:
        words = (*analyse(entry.heading, self._language), *analyse(entry.text, self._language))
        return _document(entry.id, " ".join(words))

    def _replace(self, ids: list[int], documents: Sequence[Any]) -> None:
        with self._writing() as writer:
            self._uncommitted = True
            self._delete(writer, ids)
            for document in documents:
                writer.add_document(document)

    def _commit(self) -> None:
        with self._writing() as writer:
            writer.commit()
        self._uncommitted = False
        self._reload()
        if len(self) <= SMALL:
            with self._writing() as writer:
                self._writer = None
                writer.wait_merging_threads()

    def _reload(self) -> None:
        self._index.reload()
        self._searcher = self._index.searcher()

    def _beside_removed(self) -> list[Any]:
        """The addresses of some texts of a segment that others have been removed from; none when there is no such."""
        start = 0
        for segment in self._segments():  # as many texts of each as are left, one segment after the other
            removed = segment["deletes"]["num_deleted_docs"] if segment["deletes"] else 0
            left = segment["max_doc"] - removed
            if removed and left:
                some = min(left, WRITTEN_ANEW)
                found = self._searcher.search(tantivy.Query.all_query(), some, count=False, offset=start)
                return [address for _, address in found.hits]
            start += left
        return []

    def _segments(self) -> list[dict[str, Any]]:
        """What the newest searcher's segments hold, in its order: threads that merge change both at any time."""
        file = self._folder / "meta.json"
        while True:
            before = file.read_bytes()
            self._reload()
            if file.read_bytes() == before:
                segments: list[dict[str, Any]] = json.loads(before)["segments"]
                return segments

    def _delete(self, writer: Any, ids: list[int]) -> None:
        if ids:  # by query: by term, an int never matches an unsigned field, and nothing says so
            writer.delete_documents_by_query(tantivy.Query.term_set_query(self._schema, "id", ids))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        """The writer, opened on first use. One that failed is given up, with what it had not committed."""
        if self._writer is None:
            self._writer = self._open_writer()
        try:
            yield self._writer
        except (ValueError, OSError, RuntimeError) as error:
            self._writer, self._uncommitted = None, False
            raise TryLater(
                f"The keyword index in {self._folder} could not be written ({error}); changes since the last commit "
                f"are dropped. Make them again when the disk has room.",
                code="index_write_failed",
            ) from error

    def _open_writer(self) -> Any:
        if self._index is None:
            raise TryLater(f"The keyword index in {self._folder} was closed; open it again.", code="index_busy")
        try:
            return self._index.writer(heap_size=WRITER_BYTES, num_threads=1)
        except (ValueError, OSError) as error:
            raise TryLater(
                f"{self._folder} cannot be changed now ({error}). Give each process a folder of its own.",
                code="index_busy",
            ) from error

    def _term(self, word: str) -> Any:
        return tantivy.Query.term_query(self._schema, "words", word, "freq")

    def _words(self, query: str) -> Any:
        """A query for any of the words; None when there are none."""
        words = dict.fromkeys(analyse(query, self._language))
        if not words:
            return None
        return tantivy.Query.boolean_query([(tantivy.Occur.Should, self._term(word)) for word in words])

    def _among(self, words: Any, ids: Ids) -> Any:
        """The same query with the same scores, on these ids only."""
        unscored = tantivy.Query.const_score_query(self._one_of([int(id_) for id_ in ids if id_ > 0]), 0.0)
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, unscored), (tantivy.Occur.Must, words)])

    def _one_of(self, ids: list[int]) -> Any:
        if len(ids) > FEW_IDS:
            return tantivy.Query.term_set_query(self._schema, "id", ids)
        return tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "id", id_)) for id_ in ids]
        )

    def _deepen(self, searcher: Any, query: Any, k: int, allowed: Ids | None) -> Hits:
        """The k best of those allowed: fetches more until they and all ties with the k-th are there."""
        wanted = k + EXTRA
        while True:
            hits = _fetch(searcher, query, wanted)
            inside = np.isin(hits.ids, allowed) if allowed is not None else hits.scores > 0
            found = best(hits.ids[inside], hits.scores[inside], k)
            if len(hits.ids) < wanted or (len(found.ids) == k and hits.scores.min() < found.scores[-1]):
                return found
            wanted *= 4


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("id", indexed=True, fast=True)
    builder.add_text_field("words", tokenizer_name="words", index_option="freq", stored=True)
    return builder.build()


def _document(id_: int, words: str) -> Any:
    document = tantivy.Document()
    document.add_unsigned("id", id_)  # as a keyword argument it would be signed and kill the writer's thread
    document.add_text("words", words)
    return document


def _open(folder: Path, schema: Any, settings: dict[str, object]) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".tmp*"):  # a killed process leaves its unfinished files
        leftover.unlink(missing_ok=True)
    _require_settings(folder, settings)
    try:
        index = tantivy.Index(schema, path=str(folder))
    except (ValueError, OSError) as error:
        raise _unreadable(folder, str(error)) from error
    index.config_reader("manual")  # or each index would keep a thread that watches its folder
    index.register_tokenizer("words", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
    return index


def _require_settings(folder: Path, settings: dict[str, object]) -> None:
    """Write down what made the index, before there is one; refuse one that something else made."""
    file = folder / SETTINGS_FILE
    if not (folder / "meta.json").exists():
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(settings))
        os.replace(unfinished, file)
        return
    found: object = None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text())
    if found != settings:
        raise _unreadable(folder, f"it was made under {found}, and now {settings} is in use")


def _unreadable(folder: Path, why: str) -> ChangeRequest:
    return ChangeRequest(
        f"The keyword index in {folder} cannot be used: {why}. Delete the folder; it is filled again from the catalog.",
        code="index_unreadable",
    )


def _fetch(searcher: Any, query: Any, limit: int) -> Hits:
    """The best `limit` hits, in tantivy's order, at rounded scores."""
    found = searcher.search(query, min(limit, searcher.num_docs), count=False).hits if searcher.num_docs else []
    if not found:
        return _no_hits()
    ids = searcher.fast_field_values("id", [address for _, address in found])
    return Hits(ids=np.array(ids, dtype=np.int64), scores=rounded(np.array([score for score, _ in found])))


def _no_hits() -> Hits:
    return Hits(ids=np.empty(0, dtype=np.int64), scores=np.empty(0, dtype=np.float32))
