"""What a conversation asks for: its last question as one that can be searched for by itself.

By the model where there is one (`prompts/standalone.txt`), else by words. Only the search goes by it: the model is
given the question as it was asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from indexes.words import content_words
from rag.context import Message
from rag.models import ModelAlias, Usage
from rag.models.brief import LONGEST, brief_answer
from rag.models.registry import ModelRegistry
from rag.prompt import STANDALONE, load_prompt, render

TURNS = 6
"""Messages before the question that are looked at, at most."""
SHORT = 1
"""Content words up to which a question is taken to go on from the one before. See `tests.benchmarks.multi_turn`."""
TURN_CHARACTERS = 1_000
"""Of an earlier message that the model is shown, its beginning."""

_REFERS = re.compile(r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|these|those)\b", re.IGNORECASE)
"""Words that stand for what was said. Not "that", "there" or "other": in questions these mostly do not, and a search
that takes in the question before for nothing loses more than it gains."""
_LEADS_ON = re.compile(r"\s*(?:and|but|or|so|then|what about|how about|why|really)\b", re.IGNORECASE)


def by_words(messages: Sequence[Message]) -> str:
    """The last question, with the one before it in front where it leans on that: it is short, or points back."""
    question = messages[-1]["content"]
    before = [turn["content"] for turn in messages[:-1] if turn["role"] == "user"]
    if not before or not leans(question):
        return question
    return f"{before[-1].strip()[:LONGEST]}\n{question}"


def leans(question: str) -> bool:
    """Whether a question seems to need what was said before it."""
    if _REFERS.search(question) or _LEADS_ON.match(question):
        return True
    return len(content_words(question)) <= SHORT


async def by_model(
    messages: Sequence[Message], registry: ModelRegistry, alias: ModelAlias, folders: Sequence[Path]
) -> tuple[str | None, Usage]:
    """The last question as the model rewrites it; None when it fails, is late, or says what cannot be a question. And
    what the model took."""
    said = await brief_answer(registry, alias, _asked(messages, folders), "make the question standalone")
    return said.text.strip("\"'“”` ") or None, said.usage


def _asked(messages: Sequence[Message], folders: Sequence[Path]) -> tuple[Message, ...]:
    prompt = load_prompt("standalone", folders, STANDALONE)
    shown = render(
        prompt, "user", {"conversation": _shown(messages[:-1]), "question": messages[-1]["content"][:LONGEST]}
    )
    return {"role": "system", "content": prompt.sections["system"]}, {"role": "user", "content": shown}


def _shown(turns: Sequence[Message]) -> str:
    """The last turns as one text, each cut at the end."""
    said = [turn for turn in turns if turn["role"] in ("user", "assistant")][-TURNS:]
    return "\n".join(f"{turn['role']}: {' '.join(turn['content'].split())[:TURN_CHARACTERS]}" for turn in said)
