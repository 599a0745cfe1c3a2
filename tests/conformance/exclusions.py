"""What of OpenAI's specification a retrieval backend does not serve, and why: left out of the score, nothing else.

Each row is a pattern over places (`POST /chat/completions request.audio`, a branch of a union in angle brackets) and
the reason; those of fields of requests are the server's own words. Only Chat Completions and Responses have any. What a
pattern matches is left out with all that is in it.
"""

from __future__ import annotations

import re
from functools import cache

from api.schemas import not_served

CHAT = r"\w+ /chat/completions\S* .*"
RESPONSES = r"\w+ /responses\S* .*"
EITHER = rf"({CHAT}|{RESPONSES})"

EXCLUSIONS = {
    **{rf"{CHAT}\.{name}": field.reason for name, field in not_served.CHAT.items()},
    **{rf"{RESPONSES}\.{name}": field.reason for name, field in not_served.RESPONSES.items()},
    # Chat Completions
    rf"{CHAT}<ChatCompletionRequestMessageContentPart(Image|Audio|File)>": "Questions are text.",
    rf"{CHAT}<ChatCompletionRequest(Tool|Function)Message>": "Results of tools: no tools are called here.",
    rf"{CHAT}\.tool_calls": "No tools are called here.",
    rf"{EITHER}\.prompt_cache_breakpoint": "For prompts that the caller writes, not for packed ones.",
    rf"{RESPONSES}\.verbosity": "A control of OpenAI's own models.",
    rf"{CHAT}\.system_fingerprint": "Of OpenAI's own servers; `model` and the trace say what has answered.",
    rf"{CHAT}\.(completion|prompt)_tokens_details": (
        "Of sound, images, predictions, thoughts and cached prompts: not counted alike by the providers."
    ),
    rf"{CHAT} stream\.obfuscation": "Padding of OpenAI's streams against guesses by their lengths.",
    # Responses
    rf"{RESPONSES}<(AdditionalTools|ApplyPatch|CodeInterpreter|Compaction|Computer|Custom|Function|ImageGen|LocalShell|MCP"
    rf"|Namespace|Program|ToolSearch|WebSearch)\w*>": "Tools other than file search.",
    rf"{RESPONSES}<(ToolChoice(MCP|Custom|Function|Allowed)|Specific\w+)>": "Choosing among tools that are not there.",
    rf"{RESPONSES}request\.tool_choice<ToolChoice(Types|Options)>.*": "Every answer stands on a search of files.",
    rf"{RESPONSES}<ResponseErrorEvent>": "`response.failed` tells of it, with the response itself.",
    rf"{RESPONSES}<Response(Audio|CodeInterpreter|Custom|Function|Shell|WebSearch|ImageGen|MCP)\w*>": (
        "Events of sound and of tools other than file search."
    ),
    rf"{RESPONSES}<(Response)?Reasoning\w*>": "Thoughts of a model are not handed on.",
    rf"{RESPONSES}<(Response)?Refusal\w*>": "Providers behind an alias send text; a refusal is told in it.",
    rf"{RESPONSES}<(InputImageContent|InputFileContent)>": "Questions are text.",
    rf"{RESPONSES}<(UrlCitationBody|ContainerFileCitationBody|FilePath)>": "Citations are of files in vector stores.",
    rf"{RESPONSES}\.logprobs": "Citations are checked: the tokens sent are not the model's own.",
    rf"{RESPONSES}\.prompt": "A prompt stored with OpenAI.",
    rf"{RESPONSES}\.instructions<array>": "Instructions are text; items come of a prompt stored with OpenAI.",
    rf"{RESPONSES}\.output_text": "Only in OpenAI's SDKs, which join it from the output themselves.",
    rf"{RESPONSES}<ItemReferenceParam>": "Items are not stored one by one; `previous_response_id` goes on with all.",
    rf"{RESPONSES}\.phase": "Of agents.",
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
