"""Makes untrusted text harmless in a prompt: what cannot be seen is taken out, what a model would
obey as a control token is broken visibly, and what is left stands between borders it cannot forge.

Only the prompt's copy is cleaned; stored texts, spans and citations keep the original.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterable

_LINE_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0e-\x1b\x1f\x7f-\x9f"  # control characters, without tab and line feed
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners, fillers, Mongolian selectors
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f"  # zero width, bidirectional controls, invisible operators
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"  # fillers, variation selectors, byte order mark, annotations
    "\ud800-\udfff\ufdd0-\ufdef"  # lone surrogates, noncharacters
    + "".join(f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(17))
    + "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # format controls of single scripts
    "\U000e0000-\U000e0fff"  # tags and variation selectors: whole hidden messages
    "]"
)

_ANGLED = (
    r"s|unk|pad|bos|eos|cls|sep|mask|image|sop|eop|eoh|eoa|think|tool_call|tool_calls|tool_response|endoftext"
    r"|start_of_turn|end_of_turn|start_of_image|end_of_image|start_of_audio|end_of_audio"
    r"|bos_token|eos_token|pad_token|unk_token|fim_[a-z]+|file_sep|repo_name|extra_id_\d+|unused_?\d+|reserved_?\d+"
)
_SQUARE = (
    r"INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|MODEL_SETTINGS|ARGS|CALL_ID|THINK"
    r"|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|CLS|SEP|PAD|UNK|MASK|BOS|EOS|@BOS@|gMASK|sMASK"
    r"|UNUSED_TOKEN_\d+|unused_?\d+|control_\d+"
)
# Each matches the first character of what must not stay whole; a space after it breaks the token for every tokenizer.
# The wide forms are there because some tokenizers normalise before they look for tokens.
_ROLE_TOKENS = (
    r"[<＜﹤](?=[|｜￨])",
    rf"[<＜﹤](?=/?(?i:{_ANGLED})[>＞﹥])",
    r"<(?=</?SYS>>)",
    rf"[\[［](?=/?(?:{_SQUARE})[\]］])",
)


def clean(text: str, control_tokens: tuple[str, ...] = ()) -> str:
    """`text` without invisible characters and with every role or control token broken by a space.

    `<|im_start|>` becomes `< |im_start|>`, `[INST]` becomes `[ INST]`. `control_tokens` are further tokens to break,
    those of the model's own tokenizer. Every kind of line break becomes a line feed; tabs stay. Cleaning twice
    changes nothing more.
    """
    text = visible(text)
    if "<" not in text and "[" not in text and not control_tokens and text.isascii():
        return text
    return _breaker(control_tokens).sub(r"\g<0> ", text)


def visible(text: str) -> str:
    """`text` without characters that cannot be seen. Every kind of line break becomes a line feed; tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub("", _LINE_BREAKS.sub("\n", text))


@functools.lru_cache(maxsize=32)
def _breaker(control_tokens: tuple[str, ...]) -> re.Pattern[str]:
    own = (f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in control_tokens if len(token) > 1)
    return re.compile("|".join((*_ROLE_TOKENS, *own)))


_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


def new_marker(texts: Iterable[str], seed: int | str | None = None) -> str:
    """A word of 8 letters and digits (about 40 bits) that occurs in none of `texts`, whatever its case.

    Drawn from the system's randomness, or from `seed` where a test needs the same one again.
    """
    chooser = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311  (only tests give a seed)
    payload = "\n".join(texts).casefold()
    while True:
        marker = "".join(chooser.choice(_LETTERS) for _ in range(8))
        if marker not in payload:
            return marker


TITLE_LENGTH = 160
"""Characters of a title that are shown; the title is as untrusted as the text."""


def fence(number: int, title: str, text: str, marker: str) -> str:
    """One passage as it stands in the prompt. `title` and `text` must be cleaned and free of the marker."""
    lines = [f"<passage {number} {marker}>", one_line(title), text, f"</passage {number} {marker}>"]
    return "\n".join(line for line in lines if line)


def one_line(title: str) -> str:
    """`title` on one line and not longer than TITLE_LENGTH."""
    title = " ".join(title.split())
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rstrip() + "…"
