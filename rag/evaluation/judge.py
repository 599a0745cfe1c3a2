"""Entailment by a language model that is asked (`prompts/judge.txt`), at temperature 0, with an answer in JSON.

What the judge says is a verdict only in that form. Anything else is an error by name, and never counts as support.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from typing import cast

from anyio.from_thread import start_blocking_portal

from indexes.errors import ChangeRequest
from rag.context import Message
from rag.evaluation.entailment import Pair
from rag.fence import clean, fence, new_marker
from rag.models import Delta, Sampling
from rag.models.registry import EXTRACTIVE, ModelRegistry
from rag.prompt import PromptForm, load_prompt, render
from rag.settings import Settings

JUDGE = PromptForm(("system", "user"), ("marker", "passages", "statement"))
OUTPUT_TOKENS = 64
LONGEST = 1_000
"""Characters that the judge may say; more is no verdict."""
AT_ONCE = 8

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


class Judge:
    """See `rag.evaluation.entailment.Entailment`; `groundedness.judge` names the model, else it is the default one."""

    def __init__(self, settings: Settings) -> None:
        """Raises ChangeRequest (`no_judge`) where there is no language model, and what the registry raises."""
        self._models = ModelRegistry(settings.models, default=settings.model)
        self._alias = self._models.get(settings.groundedness.judge)
        if self._alias.provider == EXTRACTIVE.provider:
            raise ChangeRequest(
                "The extractive model quotes and cannot judge. Name a language model in groundedness.judge.",
                code="no_judge",
                param="groundedness.judge",
            )
        self._prompt = load_prompt("judge", [settings.prompts] if settings.prompts else (), JUDGE)
        self._stack = ExitStack()
        self._loop = self._stack.enter_context(start_blocking_portal())

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See `Entailment`. Raises ChangeRequest (`judge_nonsense`) when the judge says what is no verdict, and what
        `LLM.stream` raises."""
        return self._loop.call(self._all, pairs)

    def close(self) -> None:
        """Close the model's connections."""
        with self._stack:
            self._loop.call(self._models.close)

    async def _all(self, pairs: Sequence[Pair]) -> list[bool]:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(text: str, statement: str) -> bool:
            async with places:
                return read_verdict(await self._said(self._asked(text, statement)))

        return await asyncio.gather(*(one(text, statement) for text, statement in pairs))

    def _asked(self, text: str, statement: str) -> tuple[Message, ...]:
        marker = new_marker([text, statement])
        values = {"marker": marker, "passages": fence(1, "", clean(text), marker), "statement": clean(statement)}
        return (
            {"role": "system", "content": self._prompt.sections["system"]},
            {"role": "user", "content": render(self._prompt, "user", values)},
        )

    async def _said(self, asked: tuple[Message, ...]) -> str:
        form = {"type": "json_object"} if "json_object" in self._alias.response_formats else None
        most = min(OUTPUT_TOKENS, self._alias.output_limit)
        sampling = Sampling(temperature=0.0, max_tokens=most, response_format=form)
        said = ""
        stream = cast("AsyncGenerator[Delta, None]", self._models.llm(self._alias).stream(asked, sampling))
        async with self._models.queue(self._alias).place(), aclosing(stream) as deltas:
            async for delta in deltas:
                said += delta.text
                if len(said) > LONGEST:
                    break
        return said


def read_verdict(said: str) -> bool:
    """What a judge's words come to. Raises ChangeRequest (`judge_nonsense`) for anything but its JSON.

    >>> read_verdict('{"supported": false}')
    False
    """
    text = said.strip()
    fenced = _FENCED.fullmatch(text)
    try:
        verdict = json.loads(fenced[1] if fenced else text)["supported"]
    except (ValueError, KeyError, TypeError, RecursionError):
        verdict = None
    if not isinstance(verdict, bool):
        raise ChangeRequest(
            f'The judge did not answer with {{"supported": true}} or {{"supported": false}} but with {said[:200]!r}. '
            "Choose another model (groundedness.judge) or another prompt (judge.txt).",
            code="judge_nonsense",
            param="groundedness.judge",
        )
    return verdict
