"""The checks that every `Embedder` must pass; truth is each text's vector, worked out alone and by definition."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from indexes.errors import ChangeRequest
from rag.embedders import Embedder
from rag.tokenizers import plain
from tests.contracts.threads import at_once

UGLY = [
    "",
    " ",
    "\n\t \u200b\u00a0",
    ".",
    "word",
    "A plain sentence about routers.",
    "ÜBER-große   Straße\r\nnaïve café — “quotes”",
    "全文検索とは、複数の文書にまたがって、文書に含まれる全文を対象とした検索。",
    "مرحبا بالعالم 🙂👩‍👩‍👧‍👦 नमस्ते",
    "[CLS] [SEP] [MASK] [PAD] <s> </s> <|endoftext|> or AND NOT",
    "e\u0301" * 40,
    "\x00\x01\x02 control \x7f",
    "x\0y",
    "a\ud800b",
    "\udfff",
    "a" * 300,
    "for (int i = 0; i < n; ++i) { x[i] ^= 0xFF; } // " * 4,
    "https://example.org/a/b?c=d&e=%20f#" + "x" * 90,
    "lorem ipsum dolor sit amet " * 25,
]


@dataclass(frozen=True)
class Subject:
    """An embedder as the checks open it, and what its vectors are."""

    open: Callable[..., Embedder]
    """With these fields of its spec changed a new one; without, perhaps one that was open already."""
    truth: Callable[[str], np.ndarray]
    """The vector of one text as it stands, with its prefix if it has one; of any length."""
    prefixes: tuple[str, str]
    """Of documents and of queries."""
    others: tuple[Mapping[str, Any], ...]
    """Fields each of which makes another space."""
    special_tokens: int = 0
    """Tokens that the model adds to every text."""
    tolerance: float = 1e-5


def directions(rows: np.ndarray | list[np.ndarray]) -> np.ndarray:
    wide = np.asarray(rows, dtype=np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def agree(subject: Subject, rows: np.ndarray, texts: list[str], prefix: str) -> None:
    truth = directions([subject.truth(prefix + plain(text)) for text in texts])
    np.testing.assert_allclose(rows, truth, atol=subject.tolerance, rtol=0)


def sides(subject: Subject, embedder: Embedder) -> list[tuple[Callable[..., np.ndarray], str]]:
    """Both methods, and the prefix of each."""
    document, query = subject.prefixes
    return [(embedder.embed_documents, document), (embedder.embed_queries, query)]


WORDS = ("router", "lamp", "battery", "port", "Straße", "鍵", "warranty", "the", "of", "🙂", "8000", "switch", "red")


def mixed(count: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 24 words, short and long ones in no order, no two the same."""
    rng = random.Random(seed)
    return [" ".join([str(at), *rng.choices(WORDS, k=rng.choice((0, 1, 2, 5, 12, 23)))]) for at in range(count)]


def full(embedder: Embedder) -> tuple[str, str]:
    """A text of exactly as many tokens as the limit allows, by the embedder's own tokenizer, and one of one more."""
    text = "a" + " a" * embedder.limit
    while embedder.tokenizer.count(text) > embedder.limit:
        text = text[:-1]
    assert embedder.tokenizer.count(text) == embedder.limit
    more = (text + tail for tail in (" a", "a"))
    return text, next(longer for longer in more if embedder.tokenizer.count(longer) == embedder.limit + 1)


def rows_are_unit_vectors_of_the_spaces_dimension(subject: Subject) -> None:
    embedder = subject.open()
    assert embedder.build
    for embed, _ in sides(subject, embedder):
        for texts in (["one"], tuple(mixed(7))):
            rows = embed(texts)
            assert type(rows) is np.ndarray
            assert rows.shape == (len(texts), embedder.space.dimension)
            assert rows.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-5)


def no_texts_are_no_rows(subject: Subject) -> None:
    embedder = subject.open()
    for embed, _ in sides(subject, embedder):
        rows = embed([])
        assert rows.shape == (0, embedder.space.dimension)
        assert rows.dtype == np.float32


def each_row_is_that_of_its_text(subject: Subject) -> None:
    """Of many texts, long beside short, over several batches, in whatever order they come."""
    embedder, texts = subject.open(), mixed(30)
    for seed, (embed, prefix) in enumerate(sides(subject, embedder)):
        shuffled = random.Random(seed).sample(texts, len(texts))
        for some in (texts[:2], shuffled):
            agree(subject, embed(some), some, prefix)


def a_row_does_not_depend_on_its_neighbours(subject: Subject) -> None:
    embedder, texts = subject.open(), mixed(10, seed=1)
    for embed, _ in sides(subject, embedder):
        together = embed(texts)
        for text, row in zip(texts, together, strict=True):
            np.testing.assert_allclose(embed([text])[0], row, atol=subject.tolerance, rtol=0)


def the_same_text_is_the_same_row(subject: Subject) -> None:
    """Within a call, where each copy has its row, and from call to call, whatever was embedded between."""
    embedder, texts = subject.open(), [*mixed(5), *mixed(5), "other", mixed(5)[0]]
    for embed, prefix in sides(subject, embedder):
        first = embed(texts).copy()
        assert len(first) == len(texts)
        agree(subject, first, texts, prefix)
        embed(mixed(4, seed=2))
        again = embed(texts)
        np.testing.assert_allclose(again, first, atol=subject.tolerance, rtol=0)
        again[:] = 0
        np.testing.assert_allclose(embed(texts), first, atol=subject.tolerance, rtol=0)


def documents_and_queries_have_each_their_prefix(subject: Subject) -> None:
    embedder, texts = subject.open(), mixed(9, seed=3)
    document, query = subject.prefixes
    assert (embedder.space.document_prefix, embedder.space.query_prefix) == (document, query)
    for _ in range(2):
        agree(subject, embedder.embed_queries(texts), texts, query)
        agree(subject, embedder.embed_documents(texts), texts, document)
    apart = np.abs(embedder.embed_queries(texts) - embedder.embed_documents(texts)).max()
    assert (apart > 100 * subject.tolerance) == (document != query)


def the_limit_is_exact(subject: Subject) -> None:
    embedder = subject.open()
    fits, over = full(embedder)
    for embed, prefix in sides(subject, embedder):
        agree(subject, embed(["short", fits]), ["short", fits], prefix)
        for texts in ([over], ["short", fits, over, "short"], [fits + " a" * embedder.limit]):
            with pytest.raises(ChangeRequest) as caught:
                embed(texts)
            assert caught.value.code == "text_too_long"
            assert str(embedder.limit) in caught.value.message
            assert str(max(map(embedder.tokenizer.count, texts))) in caught.value.message
        agree(subject, embed([fits]), [fits], prefix)


def nothing_is_cut_off(subject: Subject) -> None:
    """Texts as long as they may be, of which each differs in another place."""
    embedder = subject.open()
    fits, _ = full(embedder)
    middle = len(fits) // 2 // 2 * 2
    texts = [fits, fits[:-1] + "b", "b" + fits[1:], fits[:middle] + "b" + fits[middle + 1 :]]
    texts = [text for text in texts if embedder.tokenizer.count(text) <= embedder.limit]
    assert len(texts) > 2
    for embed, prefix in sides(subject, embedder):
        rows = embed(texts)
        agree(subject, rows, texts, prefix)
        for row in rows[1:]:
            assert np.abs(row - rows[0]).max() > 10 * subject.tolerance


def the_limit_leaves_room_for_the_longer_prefix(subject: Subject) -> None:
    embedder = subject.open()
    longest = max(map(embedder.tokenizer.count, subject.prefixes))
    assert embedder.limit == embedder.space.token_limit - subject.special_tokens - longest


def whatever_changes_the_vectors_changes_the_fingerprint(subject: Subject) -> None:
    space = subject.open().space
    others = [subject.open(**fields).space for fields in subject.others]
    assert subject.open(**subject.others[-1]).space.fingerprint == others[-1].fingerprint
    assert len({space.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def threads_get_their_own_rows(subject: Subject) -> None:
    embedder, texts = subject.open(), mixed(32, seed=4)
    truth = {embed: embed(texts) for embed, _ in sides(subject, embedder)}

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(5):
            some, embed = rng.sample(range(32), rng.randint(1, 9)), rng.choice(list(truth))
            rows = embed([texts[at] for at in some])
            np.testing.assert_allclose(rows, truth[embed][some], atol=subject.tolerance, rtol=0)

    at_once(work)


def any_text_ends_in_its_vector_or_is_too_long(subject: Subject) -> None:
    embedder = subject.open()
    for embed, prefix in sides(subject, embedder):
        short = [text for text in UGLY if embedder.tokenizer.count(text) <= embedder.limit]
        assert len(short) > 10
        agree(subject, embed(short), short, prefix)
        for text in set(UGLY) - set(short):
            with pytest.raises(ChangeRequest) as caught:
                embed([text])
            assert caught.value.code == "text_too_long"


CHECKS = (
    rows_are_unit_vectors_of_the_spaces_dimension,
    no_texts_are_no_rows,
    each_row_is_that_of_its_text,
    a_row_does_not_depend_on_its_neighbours,
    the_same_text_is_the_same_row,
    documents_and_queries_have_each_their_prefix,
    the_limit_is_exact,
    nothing_is_cut_off,
    the_limit_leaves_room_for_the_longer_prefix,
    whatever_changes_the_vectors_changes_the_fingerprint,
    threads_get_their_own_rows,
    any_text_ends_in_its_vector_or_is_too_long,
)
