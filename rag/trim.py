"""Cuts a text to what fits, at the end of a sentence where that wastes little, else at the end of a word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_SENTENCE_END = re.compile(
    r"[.!?…؟।]+[\"'”’»)\]]*(?=\s|$)"  # a full stop with what closes after it
    r"|[。！？．]+[」』”’）]*"  # scripts without spaces
    r"|[^\s](?=\s*\n)"  # the end of a line
)
_WORD_END = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|\w+|[^\w\s]+")


def sentence_ends(text: str) -> list[int]:
    """Where sentences and lines end (positions after their last character), ascending; white space is not counted.

    >>> sentence_ends('It is 3.5 m. "Really?" Yes')
    [12, 22]
    """
    return [match.end() for match in _SENTENCE_END.finditer(text)]


def word_ends(text: str) -> list[int]:
    """Where words end, ascending; in scripts written without spaces every letter is one."""
    return [match.end() for match in _WORD_END.finditer(text)]


def longest_beginning(text: str, count: Callable[[str], int], limit: int, slack: int) -> int:
    """The length of the longest beginning of `text` that takes at most `limit` tokens, 0 when there is none.

    It ends with a sentence if that leaves no more than `slack` tokens unused, else with a word. `count` is called
    about twice the logarithm of the number of sentences and words.
    """
    sentence = _last_fitting(sentence_ends(text), lambda end: count(text[:end]) <= limit) or 0
    if sentence and limit - count(text[:sentence]) <= slack:
        return sentence
    words = [end for end in word_ends(text) if end > sentence]
    return _last_fitting(words, lambda end: count(text[:end]) <= limit) or sentence


def longest_ending(text: str, count: Callable[[str], int], limit: int, slack: int) -> int:
    """Where the longest ending of `text` starts that takes at most `limit` tokens; len(text) when there is none."""
    starts = [_skip_space(text, end) for end in reversed([0, *sentence_ends(text)])]
    starts = [start for start in starts if start < len(text)]
    sentence = _last_fitting(starts, lambda start: count(text[start:]) <= limit)
    if sentence == 0 or (sentence and limit - count(text[sentence:]) <= slack):
        return sentence
    reached = sentence or len(text)
    words = [_skip_space(text, end) for end in reversed(word_ends(text)) if _skip_space(text, end) < reached]
    longest = _last_fitting(words, lambda start: count(text[start:]) <= limit)
    return reached if longest is None else longest


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _last_fitting(positions: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last position that fits, by bisection (longer texts take more tokens, but for a few at joins)."""
    low, high = 0, len(positions)
    while low < high:
        middle = (low + high) // 2
        if fits(positions[middle]):
            low = middle + 1
        else:
            high = middle
    return positions[low - 1] if low else None
