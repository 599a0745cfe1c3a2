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
    """What stands around the passages: the prompt, the caller's system messages, the turns that fit, the question; and
    how much room is left.
    """

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
        self._history = [{"role": turn["role"], "content": self.clean(turn["content"])} for turn in history]
        self._cuts = [at for at, turn in enumerate(self._history) if at == 0 or turn["role"] == "user"]
        self._oldest = len(self._cuts)
        self.history = self._since(self._oldest)
        self.base_tokens = self.count()
        self.budget = alias.window - reserved
        if self.base_tokens > self.budget:
            raise self._too_long()
        self._keep_turns(self.base_tokens + int((self.budget - self.base_tokens) * settings.history_share))

    def clean(self, text: str) -> str:
        return clean(text, self.counter.tokenizer.control_tokens)

    def messages(self, passages: str = "") -> tuple[Message, ...]:
        return messages(self.prompt, self._shown_question, passages, self.marker, self.history, self._values)

    def count(self, passages: str = "") -> int:
        """Tokens of the whole rendered prompt."""
        return self.counter.count(self.messages(passages))

    def keep_more_turns(self, passages: str) -> None:
        """Give the turns that were dropped what these passages leave."""
        self._keep_turns(self.budget, passages)

    def _too_long(self) -> ChangeRequest:
        theirs = "question and the system messages" if self.history else "question"
        return ChangeRequest(
            f"The {theirs} take {self.base_tokens} tokens together with the prompt {self.prompt.id!r}, but of the "
            f"{self.alias.window} tokens of the model {self.alias.name!r} only {max(self.budget, 0)} are left beside "
            f"the {self.reserved} reserved for the answer. Shorten the {theirs}, or ask for fewer max_tokens.",
            code="context_length_exceeded",
            param="messages",
        )

    def _keep_turns(self, limit: int, passages: str = "") -> None:
        """Keep the newest turns with which the whole prompt stays within `limit`, and at least those kept before.

        An answer is never kept without what it answers.
        """
        self.history = self._since(len(self._cuts))
        low, high = self._first_plausible(limit - self.count(passages)), self._oldest
        while low < high:
            middle = (low + high) // 2
            self.history = self._since(middle)
            low, high = (low, middle) if self.count(passages) <= limit else (middle + 1, high)
        self._oldest = high
        self.history = self._since(high)
        self.turns_kept = sum(not _stays(turn) for turn in self.history)
        self.turns_dropped = len(self._history) - len(self.history)
        self.fixed_tokens = self.count()
        left, most = self.budget - self.fixed_tokens, self.settings.context_tokens
        self.room = left if most is None else min(left, most)

    def _since(self, position: int) -> tuple[Message, ...]:
        """The history from a position among the cuts, and the system messages before it."""
        cut = self._cuts[position] if position < len(self._cuts) else len(self._history)
        return tuple(turn for at, turn in enumerate(self._history) if at >= cut or _stays(turn))

    def _first_plausible(self, limit: int) -> int:
        """The position among the cuts from which the turns' contents alone fit; nothing older needs a whole count."""
        tokens, reached = 0, len(self._history)
        for position in range(len(self._cuts) - 1, -1, -1):
            turns = (turn for turn in self._history[self._cuts[position] : reached] if not _stays(turn))
            tokens += sum(self.counter.tokenizer.count(turn["content"]) for turn in turns)
            reached = self._cuts[position]
            if tokens > limit:
                return position + 1
        return 0


def _stays(turn: Message) -> bool:
    """What the caller tells the model stays, however long the conversation grows."""
    return turn["role"] in ("system", "developer")
