"""The checks that every `KeywordIndex` must pass; truth is the formula of BM25, worked out here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexes.errors import ChangeRequest
from indexes.keyword import KeywordEntry, KeywordIndex
from indexes.vector import Hits
from indexes.words import analyse

OpenIndex = Callable[[Path], KeywordIndex]
Texts = dict[int, tuple[str, str]]
"""Heading and text by id."""

WORDS = [
    "or",
    "and",
    "not",
    "river",
    "stone",
    "東京",
    "ERR_CONN-0x7f",
    "glass",
    "paper",
    "cloud",
    "Straße",
    "coffee",
    "tea",
    "music",
    "🎉",
    "engine",
    "wheel",
]
K1, B = 1.2, 0.75

ODD = (
    'the "quoted" title: a/b\\c AND (or) NOT field:value^2 ~fuzzy* [1 TO 2] {x} +must -not',
    "UPPERCASE STRAẞE ﬁne ＡＢＣ",
    "🎉 party 👍🏽",
    "z" * 300,
    "or",
    "don’t l'école O'Reilly",
    "全文検索システム ภาษาไทย हिन्दी русский",
    "foo.bar_baz AB-1234 C++ C# 1,234.5 a@b.com",
    "x\u200by docu\u00adment \ud800 \x00 tab\tline\nend",
)


def random_texts(count: int = 60, seed: int = 0) -> Texts:
    """Short texts (under 40 words, so that rounded lengths are exact) over a few words, with repetitions."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(3, 10 * count, 9))[:count].tolist()
    weights = 1 / np.arange(1, len(WORDS) + 1)

    def some(most: int) -> str:
        return " ".join(rng.choice(WORDS, rng.integers(0, most), p=weights / weights.sum()))

    return {id_: (some(3), "filler " + some(12)) for id_ in ids}


def filled(open_index: OpenIndex, folder: Path, texts: Texts) -> KeywordIndex:
    index = open_index(folder)
    add(index, texts)
    return index


def add(index: KeywordIndex, texts: Texts) -> None:
    index.add([KeywordEntry(id_, text, heading) for id_, (heading, text) in texts.items()])
    index.commit()


def truth(index: KeywordIndex, texts: Texts, query: str) -> dict[int, float]:
    """The score of every text that holds a word of the query."""
    bags = {id_: Counter(analyse(heading) + analyse(text)) for id_, (heading, text) in texts.items()}
    average = index.average_words or sum(bag.total() for bag in bags.values()) / max(len(bags), 1)
    scores: dict[int, float] = {}
    for word in set(analyse(query)):
        holders = [id_ for id_, bag in bags.items() if word in bag]
        idf = math.log(1 + (len(bags) - len(holders) + 0.5) / (len(holders) + 0.5))
        for id_ in holders:
            count, length = bags[id_][word], bags[id_].total()
            gain = idf * count * (K1 + 1) / (count + K1 * (1 - B + B * length / average))
            scores[id_] = scores.get(id_, 0.0) + gain
    return scores


def agree(hits: Hits, scores: dict[int, float], k: int) -> None:
    assert hits.ids.dtype == np.int64
    assert hits.scores.dtype == np.float32
    expected = sorted(scores, key=lambda id_: (-float(f"{scores[id_]:.5g}"), id_))[:k]
    np.testing.assert_allclose(hits.scores, [scores[id_] for id_ in expected], rtol=1e-4)
    np.testing.assert_allclose(hits.scores, [scores[id_] for id_ in hits.ids.tolist()], rtol=1e-4)
    assert len(set(hits.ids.tolist())) == len(hits.ids)
    in_order(hits)
    last = hits.scores.min() if len(hits.ids) else 0
    clear = {id_ for id_ in expected if scores[id_] > last * 1.001}
    assert clear <= set(hits.ids.tolist())


def in_order(hits: Hits) -> None:
    pairs = list(zip((-hits.scores).tolist(), hits.ids.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert (hits.scores > 0).all()


QUERIES = (
    "river",
    "or",
    "river stone glass",
    "東京 or 🎉",
    "ERR_CONN-0x7f engine",
    "strasse filler",
    "filler",
    "tea tea tea",
)


def ranks_by_bm25(open_index: OpenIndex, folder: Path) -> None:
    texts = random_texts()
    index = filled(open_index, folder, texts)
    for query in QUERIES:
        for k in (1, 5, 1000):
            agree(index.search(query, k), truth(index, texts, query), k)


def headings_count(open_index: OpenIndex, folder: Path) -> None:
    texts = {1: ("Installing the turbine", "turn it"), 2: ("", "turn it off"), 3: ("turn", "")}
    index = filled(open_index, folder, texts)
    for query in ("turbines", "turn", "install turn"):
        agree(index.search(query, 5), truth(index, texts, query), 5)
    assert index.search("turbines", 5).ids.tolist() == [1]


def every_odd_text_is_found_by_its_words(open_index: OpenIndex, folder: Path) -> None:
    """Each text is found by itself, in either case, and by each piece of it; nothing is read as syntax."""
    texts = {number * 7: ("", text) for number, text in enumerate(ODD, 1)}
    index = filled(open_index, folder, texts)
    for id_, (_, text) in texts.items():
        for query in (text, text.upper(), text.lower(), f'"{text}', f"({text}", *text.split()):
            agree(index.search(query, 100), truth(index, texts, query), 100)
            assert id_ in index.search(query, 100).ids.tolist() or not analyse(query)


def names_and_unspaced_scripts_are_found_whole_and_in_parts(open_index: OpenIndex, folder: Path) -> None:
    """Told without `indexes.words`, so that it holds whatever that says."""
    finds = {
        "see ERR_CONN-0x7f.": ("ERR_CONN-0x7f", "err_conn-0X7F", "err_conn", "conn", "0x7f"),
        "part (AB-1234)": ("AB-1234", "ab-1234", "1234", "AB"),
        "全文検索システム": ("全文", "検索", "システム", "全文検索システム"),
        "ภาษาไทยง่าย": ("ภาษา", "ไทย", "ภาษาไทย"),
        "naïve STRASSE": ("NAIVE", "Straße", "naïve"),
        "he was running": ("run", "runs", "Running"),
    }
    misses = ("1235", "CONM", "本日", "กขค", "stras", "runway")
    index = filled(open_index, folder, {id_: ("", text) for id_, text in enumerate(finds, 1)})
    for id_, questions in enumerate(finds.values(), 1):
        for question in questions:
            assert index.search(question, 9).ids.tolist()[0] == id_, question
    for question in misses:
        assert not len(index.search(question, 9).ids), question


def a_question_without_known_words_finds_nothing(open_index: OpenIndex, folder: Path) -> None:
    index = filled(open_index, folder, random_texts())
    for query in ("", "   ", "?!", '"', "nowhere", "\x00", "* nowhere *", "id:3", "[* TO *]"):
        agree(index.search(query, 10), {}, 10)
        assert not index.scores(query, np.array([3, 12])).any()


def ties_come_by_id(open_index: OpenIndex, folder: Path) -> None:
    """Copies added out of order, some of them in commits of their own, and more than are asked for."""
    index = open_index(folder)
    ids = np.random.default_rng(1).permutation(np.arange(1, 121)).tolist()
    for start, end in ((0, 70), (70, 71), (71, 120)):
        add(index, dict.fromkeys(ids[start:end], ("River", "a stone and a bridge")))
    for query in ("river", "stone bridge", "a river and a stone"):
        for k in (1, 3, 50, 119, 500):
            hits = index.search(query, k)
            assert hits.ids.tolist() == list(range(1, 121))[:k]
            assert len(set(hits.scores.tolist())) == 1
        assert index.search(query, 3, np.arange(50, 90)).ids.tolist() == [50, 51, 52]


def restriction_keeps_scores_and_order(open_index: OpenIndex, folder: Path) -> None:
    texts = random_texts(seed=3)
    index = filled(open_index, folder, texts)
    ids = np.array(sorted(texts))
    rng = np.random.default_rng(4)
    for query in QUERIES:
        everything = index.search(query, 1000)
        for size in (1, 5, 20, len(ids)):
            allowed = np.sort(rng.choice(ids, size, replace=False))
            keep = np.isin(everything.ids, allowed)
            for k in (3, 1000):
                hits = index.search(query, k, np.union1d(allowed, [1, 2, 10**12]))
                assert hits.ids.tolist() == everything.ids[keep][:k].tolist()
                np.testing.assert_array_equal(hits.scores, everything.scores[keep][:k])


def a_large_restriction_is_one_too(open_index: OpenIndex, folder: Path) -> None:
    """More allowed ids than an engine may want to put into a query, and the best texts not among them."""
    texts = {id_: ("", "river river river" if id_ <= 200 else "river and a stone") for id_ in range(1, 301)}
    index = filled(open_index, folder, texts)
    allowed = np.concatenate([np.arange(250, 290), np.arange(1000, 31_000)])
    assert index.search("river", 10, allowed).ids.tolist() == list(range(250, 260))
    assert index.search("river", 100, allowed).ids.tolist() == list(range(250, 290))


def nothing_allowed_or_k_zero_finds_nothing(open_index: OpenIndex, folder: Path) -> None:
    index = filled(open_index, folder, random_texts())
    agree(index.search("river", 10, np.empty(0, dtype=np.int64)), {}, 10)
    agree(index.search("river", 10, np.array([1, 2])), {}, 10)
    agree(index.search("river", 0), {}, 0)
    assert len(index.search("filler", 10).ids) == 10


def an_empty_index_answers(open_index: OpenIndex, folder: Path) -> None:
    index = open_index(folder)
    for _ in range(2):
        agree(index.search("river", 10), {}, 10)
        agree(index.search("river", 10, np.array([3])), {}, 10)
        assert index.scores("river", np.array([3])).tolist() == [0.0]
        assert index.document_frequency(["river"]) == [0]
        assert len(index) == 0
        index.add([])
        index.remove(np.array([4], dtype=np.int64))
        index.remove(np.empty(0, dtype=np.int64))
        index.commit()


def changes_wait_for_the_commit(open_index: OpenIndex, folder: Path) -> None:
    index = filled(open_index, folder, {1: ("", "river")})
    index.add([KeywordEntry(2, "river stone")])
    index.remove(np.array([1]))
    assert index.search("river", 10).ids.tolist() == [1]
    assert len(index) == 1
    index.commit()
    assert index.search("river", 10).ids.tolist() == [2]
    assert len(index) == 1


def adding_again_replaces(open_index: OpenIndex, folder: Path) -> None:
    index = filled(open_index, folder, {1: ("", "river"), 2: ("", "stone"), 3: ("", "cloud")})
    index.add([KeywordEntry(1, "glass"), KeywordEntry(4, "river"), KeywordEntry(4, "paper")])
    index.add([KeywordEntry(2, "river"), KeywordEntry(2, "tea")])
    index.add([KeywordEntry(2, "coffee")])
    index.commit()
    assert len(index) == 4
    found = {
        word: index.search(word, 9).ids.tolist()
        for word in ["river", "stone", "glass", "paper", "tea", "coffee", "cloud"]
    }
    assert found == {"river": [], "stone": [], "glass": [1], "paper": [4], "tea": [], "coffee": [2], "cloud": [3]}


def removing_forgets(open_index: OpenIndex, folder: Path) -> None:
    texts = random_texts(seed=5)
    index = filled(open_index, folder, texts)
    ids = sorted(texts)
    for gone in ([ids[0]], [*ids[10:50], 999_999], [ids[0], ids[10]]):
        index.remove(np.array(gone, dtype=np.int64))
        index.commit()
        texts = {id_: text for id_, text in texts.items() if id_ not in gone}
        assert len(index) == len(texts)
        for query in QUERIES:
            hits = index.search(query, 1000)
            assert set(hits.ids.tolist()) == set(truth(index, texts, query))
            in_order(hits)
            assert not index.scores(query, np.array(gone)).any()
    add(index, {ids[0]: ("", "unmistakable")})
    assert index.search("unmistakable", 5).ids.tolist() == [ids[0]]


def compacted(index: KeywordIndex) -> KeywordIndex:
    for _ in range(1000):
        if not index.compact():
            return index
    raise AssertionError("there is always another step to take")


def scores_do_not_remember_removed_texts(open_index: OpenIndex, folder: Path) -> None:
    """Removed, replaced and changed in many commits: once it is compact, an index scores as one that is new."""
    texts = random_texts(seed=9)
    passing = {id_ + 10_000: ("tea", f"river stone glass {'東京 ' * 9}") for id_ in texts}
    index = open_index(folder)
    ids = sorted(texts)
    for start in range(0, len(ids), 20):
        some = ids[start : start + 20]
        add(index, dict.fromkeys(some, ("wheel", "coffee river or")) | {n + 10_000: passing[n + 10_000] for n in some})
        add(index, {id_: texts[id_] for id_ in some[::2]})
        index.remove(np.array([id_ + 10_000 for id_ in some[1:]]))
        index.commit()
    add(index, {id_: texts[id_] for id_ in ids})
    index.remove(np.array([*passing, ids[0], ids[9]]))
    index.commit()
    left = {id_: texts[id_] for id_ in ids if id_ not in (ids[0], ids[9])}
    new = filled(open_index, folder.with_name("new"), left)
    compacted(index)
    assert len(index) == len(left)
    for query in QUERIES:
        agree(index.search(query, 1000), truth(index, left, query), 1000)
        np.testing.assert_allclose(index.scores(query, np.array(ids)), new.scores(query, np.array(ids)), rtol=1e-4)
        assert index.search(query, 1000).ids.tolist() == new.search(query, 1000).ids.tolist()
    assert index.document_frequency(WORDS) == new.document_frequency(WORDS)


def compacting_leaves_changes_to_the_commit(open_index: OpenIndex, folder: Path) -> None:
    index = filled(open_index, folder, {1: ("", "river"), 2: ("", "river"), 3: ("", "cloud")})
    index.remove(np.array([3]))
    index.commit()
    index.add([KeywordEntry(1, "glass"), KeywordEntry(4, "paper")])
    index.remove(np.array([2]))
    assert not index.compact()
    assert index.search("river glass paper", 9).ids.tolist() == [1, 2]
    index.commit()
    compacted(index)
    assert index.search("river", 9).ids.tolist() == []
    assert index.search("glass paper", 9).ids.tolist() == [1, 4]
    assert len(index) == 2


def removed_before_the_commit_never_appears(open_index: OpenIndex, folder: Path) -> None:
    index = open_index(folder)
    index.add([KeywordEntry(1, "river"), KeywordEntry(2, "river")])
    index.remove(np.array([1]))
    index.commit()
    assert index.search("river", 5).ids.tolist() == [2]


def scores_are_those_of_the_search(open_index: OpenIndex, folder: Path) -> None:
    texts = random_texts(seed=6)
    index = filled(open_index, folder, texts)
    asked = np.array([*texts, 1, 10**15, next(iter(texts))])
    for query in QUERIES:
        hits = index.search(query, 1000)
        score_of = dict(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))
        scores = index.scores(query, asked)
        assert scores.dtype == np.float32
        assert scores.tolist() == [score_of.get(int(id_), 0.0) for id_ in asked]
    assert index.scores("river", np.empty(0, dtype=np.int64)).shape == (0,)


def document_frequency_counts_texts(open_index: OpenIndex, folder: Path) -> None:
    texts = random_texts(seed=7)
    index = filled(open_index, folder, texts)
    gone = sorted(texts)[:20]
    for _ in range(2):
        words = [*analyse(" ".join(WORDS)), "filler", "nowhere"]
        bags = [set(analyse(heading) + analyse(text)) for heading, text in texts.values()]
        assert index.document_frequency(words) == [sum(word in bag for bag in bags) for word in words]
        index.remove(np.array(gone))
        index.commit()
        texts = {id_: text for id_, text in texts.items() if id_ not in gone}
    assert index.document_frequency([]) == []


def contains_says_which_words_are_where(open_index: OpenIndex, folder: Path) -> None:
    texts = random_texts(seed=8)
    index = filled(open_index, folder, texts)
    ids = [*sorted(texts), 10**9]
    words = [*analyse(" ".join(WORDS)), "filler", "nowhere"]
    for _ in range(2):
        bags = {id_: set(analyse(heading) + analyse(text)) for id_, (heading, text) in texts.items()}
        truth = [[word in bags.get(id_, ()) for id_ in ids] for word in words]
        found = index.contains(words, np.array(ids))
        assert found.dtype == np.bool_
        assert found.tolist() == truth
        gone = sorted(texts)[:20]
        index.remove(np.array(gone))
        index.commit()
        texts = {id_: text for id_, text in texts.items() if id_ not in gone}
    assert index.contains([], np.array(ids)).shape == (0, len(ids))
    assert index.contains(words, np.empty(0, dtype=np.int64)).shape == (len(words), 0)


def large_ids_survive(open_index: OpenIndex, folder: Path) -> None:
    large = [2**53 + 1, 2**31, 2**62]
    index = filled(open_index, folder, {id_: ("", f"river word{at}") for at, id_ in enumerate(large)})
    assert index.search("word0", 5).ids.tolist() == [2**53 + 1]
    assert index.search("river", 5, np.array([2**62])).ids.tolist() == [2**62]
    index.remove(np.array([2**53 + 1]))
    index.commit()
    assert index.search("river", 5).ids.tolist() == [2**31, 2**62]


def what_was_committed_is_there_after_opening_again(open_index: OpenIndex, folder: Path) -> None:
    index = filled(open_index, folder, {1: ("", "river"), 2: ("", "stone")})
    index.add([KeywordEntry(3, "river")])
    index.close()
    index.close()
    again = open_index(folder)
    assert again.search("river", 5).ids.tolist() == [1]
    assert len(again) == 2
    add(again, {4: ("", "river")})
    assert again.search("river", 5).ids.tolist() == [1, 4]
    again.close()


def a_negative_k_or_id_is_refused(open_index: OpenIndex, folder: Path) -> None:
    index = filled(open_index, folder, {1: ("", "river")})
    for wrong in (lambda: index.search("river", -1), lambda: index.add([KeywordEntry(0, "x")])):
        with pytest.raises(ChangeRequest):
            wrong()


CHECKS = (
    ranks_by_bm25,
    headings_count,
    every_odd_text_is_found_by_its_words,
    names_and_unspaced_scripts_are_found_whole_and_in_parts,
    a_question_without_known_words_finds_nothing,
    ties_come_by_id,
    restriction_keeps_scores_and_order,
    a_large_restriction_is_one_too,
    nothing_allowed_or_k_zero_finds_nothing,
    an_empty_index_answers,
    changes_wait_for_the_commit,
    adding_again_replaces,
    removing_forgets,
    scores_do_not_remember_removed_texts,
    compacting_leaves_changes_to_the_commit,
    removed_before_the_commit_never_appears,
    scores_are_those_of_the_search,
    document_frequency_counts_texts,
    contains_says_which_words_are_where,
    large_ids_survive,
    what_was_committed_is_there_after_opening_again,
    a_negative_k_or_id_is_refused,
)
