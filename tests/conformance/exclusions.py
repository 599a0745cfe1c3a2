"""What of OpenAI's specification a retrieval backend does not serve, and why: left out of the score, nothing else.

Each row is a pattern over places (`POST /chat/completions request.audio`, a branch of a union in angle brackets) and
the reason. Only Chat Completions and Responses have any. What a pattern matches is left out with all that is in it.
"""

from __future__ import annotations

import re
from functools import cache

CHAT = r"\w+ /chat/completions\S* .*"
RESPONSES = r"\w+ /responses\S* .*"
EITHER = rf"({CHAT}|{RESPONSES})"

EXCLUSIONS = {
    # Chat Completions
    rf"{CHAT}\.(audio|modalities)": "Sound: answers are text that stands on text.",
    rf"{CHAT}<ChatCompletionRequestMessageContentPart(Image|Audio|File)>": "Questions are text.",
    rf"{CHAT}<ChatCompletionRequest(Tool|Function)Message>": "Results of tools: no tools are called here.",
    rf"{CHAT}\.(tools|tool_choice|tool_calls|parallel_tool_calls|functions|function_call)": "No tools are called here.",
    rf"{CHAT}\.web_search_options": "The documents are the source, not the web.",
    rf"{CHAT}\.(logprobs|top_logprobs|logit_bias)": "Citations are checked: the tokens sent are not the model's own.",
    rf"{CHAT}\.(prediction|prompt_cache_options|prompt_cache_retention|prompt_cache_breakpoint)": (
        "For prompts that the caller writes; here they are packed for each question."
    ),
    rf"{EITHER}\.moderation": "OpenAI's own moderation service.",
    rf"{EITHER}\.service_tier": "OpenAI's own tiers of service.",
    rf"{EITHER}\.verbosity": "A control of OpenAI's own models.",
    rf"{CHAT}\.system_fingerprint": "Of OpenAI's own servers; `model` and the trace say what has answered.",
    rf"{CHAT}\.(completion|prompt)_tokens_details": (
        "Of sound, images, predictions, thoughts and cached prompts: not counted alike by the providers."
    ),
    rf"{CHAT} stream\.obfuscation": "Padding of OpenAI's streams against guesses by their lengths.",
    rf"{CHAT}\.reasoning_effort": "A control of OpenAI's own models.",
    rf"{CHAT}\.(frequency_penalty|presence_penalty|seed)": "Not common to the providers behind an alias.",
    # Responses
    rf"{RESPONSES}<(AdditionalTools|ApplyPatch|CodeInterpreter|Compaction|Computer|Custom|Function|ImageGen|LocalShell|MCP"
    rf"|Namespace|Program|ToolSearch|WebSearch)\w*>": "Tools other than file search.",
    rf"{RESPONSES}<(ToolChoice(MCP|Custom|Function|Allowed)|Specific\w+)>": "Choosing among tools that are not there.",
    rf"{RESPONSES}<Response(Audio|CodeInterpreter|Custom|Function|Shell|WebSearch|ImageGen|MCP)\w*>": (
        "Events of sound and of tools other than file search."
    ),
    rf"{RESPONSES}<(Response)?Reasoning\w*>": "Thoughts of a model are not handed on.",
    rf"{RESPONSES}\.reasoning": "A control of OpenAI's own models.",
    rf"{RESPONSES}<(Response)?Refusal\w*>": "Providers behind an alias send text; a refusal is told in it.",
    rf"{RESPONSES}<(InputImageContent|InputFileContent)>": "Questions are text.",
    rf"{RESPONSES}<(UrlCitationBody|ContainerFileCitationBody|FilePath)>": "Citations are of files in vector stores.",
    rf"{RESPONSES}\.(logprobs|top_logprobs)": "Citations are checked: the tokens sent are not the model's own.",
    rf"{RESPONSES}\.(prompt_cache_options|prompt_cache_retention|prompt_cache_breakpoint|context_management)": (
        "For prompts that the caller writes; here they are packed for each question."
    ),
    rf"{RESPONSES}\.prompt": "A prompt stored with OpenAI.",
    rf"{RESPONSES}\.instructions<array>": "Instructions are text; items come of a prompt stored with OpenAI.",
    rf"{RESPONSES}\.output_text": "Only in OpenAI's SDKs, which join it from the output themselves.",
    rf"{RESPONSES}<ItemReferenceParam>": "Items are not stored one by one; `previous_response_id` goes on with all.",
    rf"{RESPONSES}\.conversation": "The Conversations API; `previous_response_id` goes on with a response.",
    rf"{RESPONSES}\.(background|max_tool_calls|phase)": "Work that goes on without its caller, and agents.",
    rf"{RESPONSES}<ResponseQueuedEvent>": "Work that goes on without its caller.",
    rf"{RESPONSES}query\.(starting_after|include_obfuscation|stream)": "Taking up a stream of work in the background.",
}
"""Pattern to reason; a pattern matches a whole place."""


@cache
def excluded(place: str) -> str | None:
    """Why a place is left out, None where it is not."""
    return next((reason for pattern, reason in _patterns() if pattern.fullmatch(place)), None)


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), reason) for pattern, reason in EXCLUSIONS.items()]
