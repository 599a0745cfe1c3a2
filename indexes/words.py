"""The one analysis of words, used for documents and questions and on every keyword engine.

    >>> analyse("The runner's naïve café")
    ['the', 'runner', 'naiv', 'cafe']
    >>> analyse("ERR_CONN-0x7f")
    ['err_conn-0x7f', 'err', 'conn', '0x7f']
    >>> analyse("全文検索 C++")
    ['全文', '文検', '検索', 'c++', 'c']

Text is NFKC-normalised and cut into runs of letters, digits and marks (after UAX #29, without its dictionaries). A
word is case-folded, loses its diacritics and is stemmed (Snowball). Compounds (`foo.bar_baz`, `AB-1234`, `10:30`) come
whole and in parts. Scripts written without spaces become overlapping pairs of characters. An emoji is a word.
No stop words are removed: the weights of BM25 do that better.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import lru_cache
from itertools import chain
from typing import Any

from indexes.errors import Unsupported

WORDS_VERSION = f"1-unicode{unicodedata.unidata_version}"
"""Changes whenever the analysis does: an index made under another version has to be rebuilt."""

LONGEST = 1000
"""Characters of a word that count; engines refuse terms of some ten thousand bytes."""

MOST_PARTS = 32
"""A compound of more parts (a hex dump, a table drawn in dots) is no name: only its parts are kept."""

# Thai to Myanmar, Khmer, kana, bopomofo, Hangul and Han; NFKC has unified the compatibility forms before.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u109f\u1100-\u11ff\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u318e\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
)
_EMOJI = "\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f3fa\U0001f400-\U0001faff"

# Written inside words without being part of them: soft hyphen, joiners, direction marks, variation selectors, BOM.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180b-\u180e\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")

_PUNCTUATION = str.maketrans({"‐": "-", "‑": "-", "’": "'", "‘": "'", "ʼ": "'"})
_LETTERS_WITHOUT_DECOMPOSITION = str.maketrans(
    {"ø": "o", "đ": "d", "ł": "l", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
_CONTRACTION = re.compile(r"(?:n't|'(?:re|ve|ll|d|m))$")
_BETWEEN_PARTS = re.compile(r"[-_.:@,+#]+")

_STOP_WORDS = (
    "a about after all also am an and any are as at be because been before being between both but by can can't could "
    "did didn't do does doesn't doing don't down during each few for from further had has have having he her here "
    "hers him his how i i'm if in into is isn't it its itself just me more most my no nor not now of off on once only "
    "or other our ours out over own please same she should so some such tell than that the their theirs them then "
    "there these they this those through to too under until up very was wasn't we were what when where which while "
    "who whom why will with won't would you your yours"
)


def analyse(text: str, language: str = "english") -> list[str]:
    """The words of `text` in order, as they are indexed and searched; never empty strings, never with white space.

    `language` names the Snowball stemmer. Raises Unsupported for a language it does not have.
    """
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_PUNCTUATION)
    runs = _runs().findall(text)
    return list(
        chain.from_iterable([_terms(run, language) if len(run) < 64 else _analyse_run(run, language) for run in runs])
    )


def content_words(text: str, language: str = "english") -> list[str]:
    """The distinct words of `text` in order of appearance, without the most common English ones.

    All distinct words when nothing else is left ("to be or not to be").
    """
    words = list(dict.fromkeys(analyse(text, language)))
    common = _stop_words(language)
    return [word for word in words if word not in common] or words


def without_common_words(text: str, language: str = "english") -> str:
    """A question without its most common English words, for a search: they find everything and say nothing.

    Unchanged when nothing else is left ("to be or not to be"). BM25 weighs common words little, but a question holds
    many of them: without them nDCG@10 of the keyword leg is .710 instead of .636 on questions to support manuals.
    """
    common = _stop_words(language)
    kept = [run for run in _runs().findall(text) if not common.issuperset(analyse(run, language))]
    return " ".join(kept) or text


@lru_cache(maxsize=1)
def _runs() -> re.Pattern[str]:
    """Compounds of words, runs of an unspaced script, single emoji.

    Python's `\\w` leaves out the marks without which Hindi or Tamil falls to pieces, so the class is made here, once.
    """
    word = f"[{_word_class()}]+"
    compound = rf"{word}(?:(?:[-.:@']|(?<=\d),(?=\d)){word})*(?:\+\+|\#(?![{_word_class()}]))?"
    return re.compile(f"{compound}|[{_UNSPACED}]+|[{_EMOJI}]")


@lru_cache(maxsize=1)
def _word_class() -> str:
    unspaced = re.compile(f"[{_UNSPACED}]")
    members = [
        code
        for code in range(0x20000)  # what lies above is Han
        if (unicodedata.category(chr(code))[0] in "LNM" or code == ord("_")) and not unspaced.match(chr(code))
    ]
    starts = [code for code, before in zip(members, [-1, *members], strict=False) if code != before + 1]
    ends = [code for code, after in zip(members, [*members[1:], -1], strict=True) if code != after - 1]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


@lru_cache(maxsize=65_536)
def _terms(run: str, language: str) -> tuple[str, ...]:
    return _analyse_run(run, language)


def _analyse_run(run: str, language: str) -> tuple[str, ...]:
    if re.match(f"[{_UNSPACED}]", run):
        return tuple(run[at : at + 2] for at in range(max(len(run) - 1, 1)))
    whole = run.casefold().strip("_")
    if "'" in whole:
        return _with_apostrophe(whole, language)
    parts = [part for part in _BETWEEN_PARTS.split(whole) if part]
    if parts == [whole]:
        return (_term(whole, language),)
    terms = tuple(_term(part, language) for part in parts)
    return (_fold(whole)[:LONGEST], *terms) if 0 < len(parts) <= MOST_PARTS else terms


def _with_apostrophe(whole: str, language: str) -> tuple[str, ...]:
    """`runner's` is `runner`; `don't` is `dont`; `o'reilly` and `l'école` also count without what is elided."""
    whole = whole.removesuffix("'s")
    joined = whole.replace("'", "")
    if "'" not in whole or _CONTRACTION.search(whole):
        return _analyse_run(joined, language) if joined else ()
    parts = (part for part in whole.split("'") if len(part) > 1)
    return tuple(
        dict.fromkeys(chain(_analyse_run(joined, language), *(_analyse_run(part, language) for part in parts)))
    )


def _term(word: str, language: str) -> str:
    word = word[:LONGEST]
    if language == "english":  # its stemmer knows bare letters only; the others know their own accents
        return _stem(_fold(word), language)
    return _fold(_stem(word, language))


def _fold(word: str) -> str:
    """Without the diacritics of alphabets; the vowel signs of Indic scripts and the voicing marks of kana stay."""
    if word.isascii():
        return word
    letters = (letter for letter in unicodedata.normalize("NFKD", word) if not _is_diacritic(letter))
    folded = unicodedata.normalize("NFKC", "".join(letters)).casefold().translate(_LETTERS_WITHOUT_DECOMPOSITION)
    return folded or word


def _is_diacritic(letter: str) -> bool:
    return unicodedata.category(letter) == "Mn" and (letter < "\u0900" or "\u1ab0" <= letter <= "\u1dff")


def _stem(word: str, language: str) -> str:
    if not word.isalpha():
        return word
    return str(_stemmer(language, threading.get_ident()).stemWord(word)) or word


@lru_cache(maxsize=64)
def _stemmer(language: str, _thread: int) -> Any:
    """One per thread: a Snowball stemmer works in a buffer of its own."""
    import Stemmer

    try:
        return Stemmer.Stemmer(language)
    except KeyError as error:
        known = ", ".join(Stemmer.algorithms())
        raise Unsupported(
            f"There is no stemmer for the language {language!r}. Known: {known}.", code="unknown_language"
        ) from error


@lru_cache(maxsize=8)
def _stop_words(language: str) -> frozenset[str]:
    return frozenset(analyse(_STOP_WORDS, language))
