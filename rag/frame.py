"""What stands around the passages of a prompt, and how much room is left for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from indexes.errors import ChangeRequest
from rag.context import Message
from rag.fence import clean
from rag.models import ModelAlias
from rag.pack_settings import PackSettings
from rag.prompt import Prompt, messages
from rag.tokenizers import PromptCounter


class Frame:
    """What stands around the passages: the prompt, the history that fits, the question; and how much room is left."""

    def __init__(
        self,
        question: str,
        alias: ModelAlias,
        prompt: Prompt,
        settings: PackSettings,
        history: Sequence[Message],
        reserved: int,
        values: Mapping[str, str] | None,
        counter: PromptCounter,
        marker: str,
    ) -> None:
        self.question, self.alias, self.prompt, self.settings = question, alias, prompt, settings
        self.reserved, self.counter, self.marker = reserved, counter, marker
        self._values = values
        self._shown_question = self.clean(question)
        self.history: tuple[Message, ...] = ()
        self.base_tokens = self.count()
        self.budget = alias.window - reserved
        if self.base_tokens > self.budget:
            raise self._too_long()
        self._keep_history(history)
        self.fixed_tokens = self.count()
        self.turns_dropped = len(history) - len(self.history)
        left = self.budget - self.fixed_tokens
        self.room = left if settings.context_tokens is None else min(left, settings.context_tokens)

    def clean(self, text: str) -> str:
        return clean(text, self.counter.tokenizer.control_tokens)

    def messages(self, passages: str = "") -> tuple[Message, ...]:
        return messages(self.prompt, self._shown_question, passages, self.marker, self.history, self._values)

    def count(self, passages: str = "") -> int:
        """Tokens of the whole rendered prompt."""
        return self.counter.count(self.messages(passages))

    def _too_long(self) -> ChangeRequest:
        return ChangeRequest(
            f"The question and the prompt {self.prompt.id!r} take {self.base_tokens} tokens, but of the "
            f"{self.alias.window} tokens of the model {self.alias.name!r} only {max(self.budget, 0)} are left beside "
            f"the {self.reserved} reserved for the answer. Shorten the question, or ask for fewer max_tokens.",
            code="context_length_exceeded",
            param="messages",
        )

    def _keep_history(self, history: Sequence[Message]) -> None:
        """Keep the newest turns that fit into their share. An answer is never kept without what it answers."""
        cleaned = [{"role": turn["role"], "content": self.clean(turn["content"])} for turn in history]
        cuts = [at for at, turn in enumerate(cleaned) if turn["role"] != "assistant"]
        limit = self.base_tokens + int((self.budget - self.base_tokens) * self.settings.history_share)
        low, high = self._first_plausible(cleaned, cuts, limit - self.base_tokens), len(cuts)
        while low < high:
            middle = (low + high) // 2
            self.history = tuple(cleaned[cuts[middle] :])
            low, high = (low, middle) if self.count() <= limit else (middle + 1, high)
        self.history = tuple(cleaned[cuts[low] :]) if low < len(cuts) else ()

    def _first_plausible(self, turns: Sequence[Message], cuts: Sequence[int], limit: int) -> int:
        """The position among `cuts` from which the contents alone fit; nothing older needs a whole count."""
        tokens, reached = 0, len(turns)
        for position in range(len(cuts) - 1, -1, -1):
            tokens += sum(self.counter.tokenizer.count(turn["content"]) for turn in turns[cuts[position] : reached])
            reached = cuts[position]
            if tokens > limit:
                return position + 1
        return 0
