"""Fills the context window of a model with what retrieval found.

The prompt is counted as the model reads it, rendered and whole, and never exceeds the window less what the
answer needs. On the way there, texts are counted once each and piece by piece; the whole is counted a few times
at the end, to verify and to correct. So packing costs what it emits, not what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rag.context import Candidate, Context, Message
from rag.fence import clean, new_marker
from rag.frame import Frame
from rag.ledger import finish
from rag.models import ModelAlias, Sampling
from rag.pack_settings import Neighbours, PackSettings, SliceText
from rag.prompt import Prompt
from rag.tokenizers import PromptCounter
from rag.window import Window, shown_title


def pack(
    question: str,
    candidates: Sequence[Candidate],
    alias: ModelAlias,
    prompt: Prompt,
    settings: PackSettings | None = None,
    *,
    history: Sequence[Message] = (),
    sampling: Sampling | None = None,
    neighbours: Neighbours | None = None,
    slice_text: SliceText | None = None,
    values: Mapping[str, str] | None = None,
    seed: int | str | None = None,
) -> Context:
    """The context for `question`: passages, the messages they stand in, and the ledger.

    Without `neighbours` nothing is widened; without `slice_text` only chunks that touch are merged. `values` are the
    prompt's own variables. `seed` fixes the random marker, for tests: the same input then gives the same output.

    Raises ChangeRequest `context_length_exceeded` when the question and the history's system messages, which always
    stay, do not fit beside the template and the answer; whatever a prompt or a chat template raises.
    """
    settings = settings or PackSettings()
    counter = PromptCounter(alias)
    control_tokens = counter.tokenizer.control_tokens
    texts = [clean(text, control_tokens) for text in _untrusted(question, candidates, history)]
    while True:
        marker = new_marker(texts, seed)
        frame = Frame(
            question, alias, prompt, settings, history, _reserved(alias, settings, sampling), values, counter, marker
        )
        window = Window(frame, candidates, slice_text)
        window.fill()
        window.widen(neighbours)
        context = finish(frame, window)
        joined = [clean(passage.text, control_tokens) for passage in context.passages]
        if not any(marker in text.casefold() for text in joined):
            return context
        texts += joined  # the marker stands across a join, or in a neighbour: draw another


def _untrusted(question: str, candidates: Iterable[Candidate], history: Iterable[Message]) -> list[str]:
    shown = [
        text for candidate in candidates for text in (shown_title(candidate, candidate.heading_path), candidate.text)
    ]
    return [question, *(turn["content"] for turn in history), *shown]


def _reserved(alias: ModelAlias, settings: PackSettings, sampling: Sampling | None) -> int:
    if settings.reserve is not None:
        return settings.reserve
    asked = (sampling and sampling.max_tokens) or alias.sampling.max_tokens or alias.output_limit
    return min(asked, alias.output_limit)
