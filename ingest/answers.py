"""Answers that models gave before, by everything that decides them: for experiments, which ask the same again."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from rag.answer import Answer
from rag.ask import Prepared
from rag.context import Passage

KEPT_DAYS = 30
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)


class AnswerCache:
    """A folder of answers, each under the hash of its prompt, passages, model and sampling. Safe to share."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder, and forgets what is older than `KEPT_DAYS`: answers repeat documents."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in folder.glob("*.json"):
            if path.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
                path.unlink(missing_ok=True)

    def get(self, prepared: Prepared) -> Answer | None:
        """What was answered, None where it was not asked."""
        try:
            return _ANSWER.validate_json(self._path(prepared).read_bytes())
        except FileNotFoundError:
            return None

    def put(self, prepared: Prepared, answer: Answer) -> None:
        """Keep an answer."""
        path = self._path(prepared)
        written = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        written.write_bytes(_ANSWER.dump_json(answer))
        os.replace(written, path)

    def _path(self, prepared: Prepared) -> Path:
        return self._folder / f"{key_of(prepared)}.json"


def key_of(prepared: Prepared) -> str:
    """The SHA-256 of what decides an answer. The rendered prompt is not among it: its marker, and with that what each
    passage takes of the window, is another one each time."""
    context = prepared.context
    decides: dict[str, Any] = {
        "question": context.question,
        "prompt": context.prompt_hash,
        "passages": [_as_said(passage) for passage in context.passages],
        "grounded": context.grounded,
        "model": asdict(prepared.alias),
        "sampling": asdict(prepared.sampling),
        "abstain": prepared.abstain,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def _as_said(passage: Passage) -> dict[str, Any]:
    beside = ("fused", "relevance", "tokens")
    return {name: value for name, value in asdict(passage).items() if name not in beside}
