"""OpenAI's fields that nothing here acts on, and why: any value that asks for something would be a promise.

What is here is said in the error, in the interface's documentation, and left out of the conformance score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class NotServed:
    """A field; null and what is in `taken` ask for nothing."""

    reason: str
    taken: tuple[Any, ...] = ()


_SOUND = "Answers are text."
_TOOLS = "The model is given passages, not tools."
_TOKENS = "Citations are checked, so that the words sent are not the model's own tokens."
_DIALECT = "The providers behind an alias do not have it alike."
_CONTROL = "It is a control of OpenAI's own models."
_CACHE = "It is for prompts that the caller writes; here they are packed for each question."
_MODERATION = "It is OpenAI's own service."
_TIER = NotServed("It is of OpenAI's own service.", ("auto", "default"))

CHAT: Mapping[str, NotServed] = {
    "audio": NotServed(_SOUND),
    "frequency_penalty": NotServed(_DIALECT, (0,)),
    "function_call": NotServed(_TOOLS, ("none", "auto")),
    "functions": NotServed(_TOOLS, ([],)),
    "logit_bias": NotServed(_TOKENS, ({},)),
    "logprobs": NotServed(_TOKENS, (False,)),
    "modalities": NotServed(_SOUND, (["text"],)),
    "moderation": NotServed(_MODERATION),
    "parallel_tool_calls": NotServed(_TOOLS, (True, False)),
    "prediction": NotServed(_CACHE),
    "presence_penalty": NotServed(_DIALECT, (0,)),
    "prompt_cache_options": NotServed(_CACHE),
    "prompt_cache_retention": NotServed(_CACHE),
    "reasoning_effort": NotServed(_CONTROL),
    "seed": NotServed(_DIALECT),
    "service_tier": _TIER,
    "tool_choice": NotServed(_TOOLS, ("none", "auto")),
    "tools": NotServed(_TOOLS, ([],)),
    "top_logprobs": NotServed(_TOKENS, (0,)),
    "verbosity": NotServed(_CONTROL, ("medium",)),
    "web_search_options": NotServed("The documents are the source, not the web."),
}
RESPONSES: Mapping[str, NotServed] = {
    "background": NotServed("An answer ends with its request, so that none is left hanging.", (False,)),
    "context_management": NotServed(_CACHE),
    "conversation": NotServed("A conversation goes on by `previous_response_id`."),
    "max_tool_calls": NotServed("Each question is searched for once."),
    "moderation": NotServed(_MODERATION),
    "prompt_cache_options": NotServed(_CACHE),
    "prompt_cache_retention": NotServed(_CACHE),
    "reasoning": NotServed(_CONTROL, ({},)),
    "service_tier": _TIER,
    "top_logprobs": NotServed(_TOKENS, (0,)),
}


def only_served(data: Any, not_served: Mapping[str, NotServed]) -> Any:
    """A body without the fields that nothing acts on. Refuses one that asks for something by them."""
    if not isinstance(data, dict):
        return data
    for name in data.keys() & not_served.keys():
        if data[name] not in (None, *not_served[name].taken):
            raise PydanticCustomError(
                "unsupported_parameter",
                "'{param}' is not served here. {reason} Leave it out.",
                {"param": name, "reason": not_served[name].reason},
            )
    return {name: value for name, value in data.items() if name not in not_served}


def told(not_served: Mapping[str, NotServed]) -> str:
    """The same for people, as Markdown."""
    lines = [f"- `{name}`: {field.reason}" for name, field in not_served.items()]
    return "\n".join(["Fields of OpenAI's that are refused where they ask for something:", "", *lines])
