"""Duplicates against the definition: the Jaccard similarity of shingles, worked out here with plain sets."""

from __future__ import annotations

import random
import re

from rag.duplicates import SeenTexts

LETTERS = "abcdefghij"


def similarity(one: str, two: str) -> float:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z]+", text)
        return {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))}

    return len(shingles(one) & shingles(two)) / len(shingles(one) | shingles(two))


def test_near_duplicates_are_those_above_nine_tenths() -> None:
    chooser = random.Random(3)
    near = 0
    for _ in range(300):
        words = ["".join(chooser.choices(LETTERS, k=6)) for _ in range(chooser.randrange(10, 300))]
        changed = [word if chooser.random() > 0.01 else "changed" for word in words]
        seen = SeenTexts()
        seen.add(" ".join(words))
        expected = similarity(" ".join(words), " ".join(changed)) > 0.9
        assert (" ".join(changed) in seen) == expected
        near += expected and words != changed
    assert near > 10


def test_case_punctuation_and_white_space_do_not_matter() -> None:
    seen = SeenTexts()
    seen.add("Hold the button, then wait.")
    assert "HOLD the\n\nbutton -- then wait" in seen
    assert "Hold the button, then run." not in seen


def test_texts_that_differ_in_a_number_are_not_duplicates() -> None:
    seen = SeenTexts()
    text = "word " * 200 + "costs {} euros " + "and more words " * 100
    seen.add(text.format(5))
    assert text.format(5) in seen
    assert text.format(6) not in seen


def test_scripts_without_spaces_are_compared_letter_by_letter() -> None:
    seen = SeenTexts()
    text = "".join(chr(0x4E00 + at) for at in range(200))
    seen.add(text)
    assert text[:-1] + "。" in seen
    assert text[100:] + text[:100][::-1] not in seen


def test_nothing_is_a_duplicate_of_nothing_seen_or_of_mere_signs() -> None:
    seen = SeenTexts()
    assert "anything" not in seen
    assert "" not in seen
    seen.add("---")
    assert "***" not in seen
    assert "---" in seen
