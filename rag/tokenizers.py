"""Counting tokens as a model counts them.

A tokenizer is named in the settings by a string:

    o200k_base, cl100k_base     the encodings of `bpe-openai` (carried in the package, no download)
    /path/to/tokenizer.json     a Hugging Face tokenizer file
    bytes                       a bound that no byte-level tokenizer exceeds: one token per UTF-8 byte
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Counts tokens of plain text, without special tokens."""

    name: str
    exact: bool
    """False when `count` is an upper bound rather than the model's own count."""

    def count(self, text: str) -> int:
        """How many tokens `text` takes. Text that looks like a special token is counted as plain text."""
        ...

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """The span of each token in characters (Python string indices), in order.

        Spans ascend and never overlap; text that no token covers (white space, in some models)
        lies between them. len(offsets(text)) == count(text).
        """
        ...
