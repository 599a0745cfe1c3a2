"""The commonest ordinary English words, as `rag/evaluation/words.txt` holds them.

    python -m tests.benchmarks.common_words > rag/evaluation/words.txt

The vocabulary of the packaged model (BERT's) is ordered by frequency and knows no capitals; in that of `cl100k_base`,
whose numbers ascend with rarity too, a word that is commoner with a capital is a name.
"""

from __future__ import annotations

from itertools import islice

from indexes.words import analyse, content_words
from rag.embedders.model_files import PACKAGED_MODEL, resolve_model
from rag.tokenizers import open_tokenizer

MOST = 8_000
_OPENING = "additionally furthermore however licensed moreover mr mrs none oh promise yeah yes"
NO_NAMES = frozenset(_OPENING.split())
"""Often at the beginning of a sentence, and so with a capital."""
FIRST_WORD = 1_996
"""Of the vocabulary; before it stand marks and single characters."""


def common_words() -> list[str]:
    """The words, most frequent first."""
    vocabulary = (resolve_model(PACKAGED_MODEL).path / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = (word for word in vocabulary[FIRST_WORD:] if word.isascii() and word.isalpha() and len(word) > 1)
    return list(islice(filter(is_ordinary, words), MOST))


def is_ordinary(word: str) -> bool:
    """Whether a word is no name: it carries no meaning of its own, or is not commoner, by far, with a capital."""
    if word in NO_NAMES or content_words(f"{word} the") != [analyse(word)[0]]:
        return True
    rarity = _rarity(f" {word}")
    return rarity is not None and rarity <= 1.5 * (_rarity(f" {word.capitalize()}") or rarity)


def _rarity(token: str) -> int | None:
    """The number of a token, larger for rarer ones; None for what is none."""
    tokens = open_tokenizer("cl100k_base")._engine.encode(token)  # type: ignore[attr-defined]
    return int(tokens[0]) if len(tokens) == 1 else None


if __name__ == "__main__":
    print("\n".join(common_words()))
