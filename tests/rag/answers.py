"""Passages and contexts for the tests of answering."""

from __future__ import annotations

from typing import Any

from rag.context import Context, Ledger, Passage


def passage(number: int, text: str, **changes: Any) -> Passage:
    """Passage `number` holding `text`, which starts at 1000 times its number in its document."""
    fields: dict[str, Any] = {
        "number": number,
        "document_id": number * 10,
        "version_id": number * 100,
        "store_id": "vs_1",
        "file_id": f"file-{number}",
        "filename": f"{number}.md",
        "title": "",
        "heading_path": (),
        "page": None,
        "start": number * 1000,
        "end": number * 1000 + len(text),
        "text": text,
        "chunk_ids": (number,),
        "attributes": {},
        "fused": 1.0 / number,
        "relevance": 0.5,
        "tokens": 10,
    }
    return Passage(**{**fields, **changes})


def context(question: str, *passages: Passage, grounded: bool = True) -> Context:
    """A packed context; its prompt is the passages and the question, unfenced."""
    ledger = Ledger(
        entries=(),
        window=8192,
        reserved_tokens=1024,
        base_tokens=20,
        history_tokens=0,
        prompt_tokens=20 + sum(part.tokens for part in passages),
        turns_kept=0,
        turns_dropped=0,
        tokenizer="o200k_base",
        exact=True,
    )
    texts = "\n".join(f"[{part.number}] {part.text}" for part in passages)
    messages = (
        {"role": "system", "content": "Answer from the passages."},
        {"role": "user", "content": f"{texts}\n{question}"},
    )
    return Context(passages, messages, ledger, "answer", "0" * 32, question, grounded)
