"""The registry of models: from the settings' `[models.NAME]` tables to aliases and open providers."""

from __future__ import annotations

import importlib
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from indexes.errors import ChangeRequest, NotThere, RagError, Unsupported
from indexes.registry import resolve
from rag.context import Context, Message
from rag.models import LLM, PROVIDERS, Delta, ModelAlias, ResponseForm, Sampling
from rag.models.queue import ModelQueue
from rag.telemetry import Telemetry
from rag.tokenizers import open_tokenizer

GROUP = "rag.models"
"""The entry point group in which another package names its providers."""

EXTRACTIVE = ModelAlias(name="extractive", provider="extractive", model="extractive", window=8192, output_limit=1024)
"""The alias that is always there: it needs no model."""

MOST_STOPS = 4
LONGEST_STOP = 500
"""Characters of one stop sequence."""


class ModelRegistry:
    """The aliases of an installation and the providers opened for them."""

    def __init__(
        self, tables: Mapping[str, object], default: str = EXTRACTIVE.name, telemetry: Telemetry | None = None
    ) -> None:
        """`tables` is what TOML holds under `[models]`: name to table. `default` answers for a request that names none.

        Raises ChangeRequest (`bad_settings`, `param` is `models.NAME.FIELD`) for a table that is not right, and
        NotThere when the default is none of them.
        """
        self._aliases = {EXTRACTIVE.name: EXTRACTIVE}
        self._aliases.update({name: read_alias(name, table) for name, table in tables.items()})
        self._open: dict[str, LLM] = {}
        self._queues: dict[str, ModelQueue] = {}
        self._telemetry = telemetry or Telemetry()
        self._lock = Lock()
        self._default = self.get(default).name

    def get(self, name: str | None = None) -> ModelAlias:
        """The alias of this name; None gives the default. Raises NotThere (`model_not_found`)."""
        if name is None:
            return self._aliases[self._default]
        try:
            return self._aliases[name]
        except KeyError:
            known = ", ".join(sorted(self._aliases))
            raise NotThere(
                f"There is no model alias {name!r}. Known: {known}.", code="model_not_found", param="model"
            ) from None

    def aliases(self) -> tuple[ModelAlias, ...]:
        """All aliases, by name."""
        return tuple(self._aliases[name] for name in sorted(self._aliases))

    def llm(self, alias: ModelAlias) -> LLM:
        """The provider of `alias`, opened at the first call and kept until `close`."""
        with self._lock:
            if alias.name not in self._open:
                self._open[alias.name] = provider_class(alias.provider)(alias)
            return self._open[alias.name]

    def stream(
        self, alias: ModelAlias, messages: tuple[Message, ...], sampling: Sampling, context: Context | None = None
    ) -> AsyncGenerator[Delta, None]:
        """What the provider of `alias` says: see `LLM.stream`."""
        return self._telemetry.chat(alias, messages, sampling, self.llm(alias).stream(messages, sampling, context))

    def queue(self, alias: ModelAlias) -> ModelQueue:
        """The queue in front of `alias`."""
        return self._queues.setdefault(alias.name, ModelQueue(alias))

    def queues(self) -> Mapping[str, ModelQueue]:
        """The queues that were asked for, by the aliases' names."""
        return dict(self._queues)

    async def close(self) -> None:
        """Close every provider that was opened. Idempotent."""
        while self._open:
            _, llm = self._open.popitem()
            await llm.close()


def merge_sampling(alias: ModelAlias, request: Sampling) -> Sampling:
    """What to sample with: the request's values over the alias's, `max_tokens` never None.

    Raises ChangeRequest (`param` names the value) outside of the limits: max_tokens 1 to `alias.output_limit`,
    temperature 0 to 2, top_p above 0 up to 1, at most 4 stop sequences of 1 to 500 characters.
    """
    ours = alias.sampling
    merged = Sampling(
        temperature=ours.temperature if request.temperature is None else request.temperature,
        top_p=ours.top_p if request.top_p is None else request.top_p,
        max_tokens=next(n for n in (request.max_tokens, ours.max_tokens, alias.output_limit) if n is not None),
        stop=request.stop or ours.stop,
        response_format=request.response_format,
    )
    _check_response_format(alias, request)
    _check_sampling(merged, alias.output_limit, f"the model {alias.name!r}")
    return merged


def _check_response_format(alias: ModelAlias, request: Sampling) -> None:
    kind = (request.response_format or {}).get("type")
    if kind is not None and kind not in alias.response_formats:
        can = f"only {', '.join(alias.response_formats)}" if alias.response_formats else "plain text only"
        raise ChangeRequest(
            f"The model {alias.name!r} is not set up for answers of the form {kind!r}: {can}. Leave 'response_format' "
            f"out, or add the form to `models.{alias.name}.response_formats` if its server has it.",
            code="unsupported_parameter",
            param="response_format",
        )


def _check_sampling(sampling: Sampling, output_limit: int, whose: str) -> None:
    if sampling.temperature is not None and not 0 <= sampling.temperature <= 2:
        raise _bad_sampling("temperature", f"{sampling.temperature} is outside of 0 to 2")
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        raise _bad_sampling("top_p", f"{sampling.top_p} is not above 0 and at most 1")
    if sampling.max_tokens is not None and not 1 <= sampling.max_tokens <= output_limit:
        raise _bad_sampling(
            "max_tokens", f"{sampling.max_tokens} is outside of 1 to {output_limit}, the limit of {whose}"
        )
    if len(sampling.stop) > MOST_STOPS:
        raise _bad_sampling("stop", f"{len(sampling.stop)} sequences are more than {MOST_STOPS}")
    if not all(1 <= len(stop) <= LONGEST_STOP for stop in sampling.stop):
        raise _bad_sampling("stop", f"each sequence has 1 to {LONGEST_STOP} characters")


def _bad_sampling(name: str, reason: str) -> ChangeRequest:
    return ChangeRequest(f"{name} cannot be used: {reason}.", code="invalid_sampling", param=name)


# ---- reading one table -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One field of a `[models.NAME]` table."""

    kinds: tuple[type, ...]
    what: str
    required: bool = False
    least: float = -math.inf


_FIELDS: Mapping[str, _Field] = {
    "provider": _Field((str,), "a string", required=True),
    "model": _Field((str,), "a string", required=True),
    "window": _Field((int,), "a whole number of tokens, 1 or more", required=True, least=1),
    "output_limit": _Field((int,), "a whole number of tokens, 1 or more", required=True, least=1),
    "tokenizer": _Field((str,), "a string", required=True),
    "chat_template": _Field((str,), "the path of a file"),
    "message_tokens": _Field((int,), "a whole number, 0 or more", least=0),
    "reply_tokens": _Field((int,), "a whole number, 0 or more", least=0),
    "base_url": _Field((str,), "an http or https URL"),
    "api_key_env": _Field((str,), "the name of an environment variable"),
    "timeout": _Field((int, float), "seconds, above 0", least=1e-3),
    "retries": _Field((int,), "a whole number, 0 or more", least=0),
    "prompt": _Field((str,), "the name of a prompt"),
    "sampling": _Field((dict,), "a table"),
    "response_formats": _Field((list, tuple), f"a list of {' and '.join(get_args(ResponseForm))}"),
    "vector_stores": _Field((list, tuple), "a list of names or ids of vector stores"),
    "concurrent": _Field((int,), "a whole number, 1 or more", least=1),
    "waiting": _Field((int,), "a whole number, 0 or more", least=0),
    "wait_seconds": _Field((int, float), "seconds, above 0", least=1e-3),
    "answer_seconds": _Field((int, float), "seconds, above 0", least=1e-3),
}

_SAMPLING_FIELDS: Mapping[str, _Field] = {
    "temperature": _Field((int, float), "a number from 0 to 2"),
    "top_p": _Field((int, float), "a number above 0, at most 1"),
    "max_tokens": _Field((int,), "a whole number, 1 or more"),
    "stop": _Field((list, tuple), "a list of strings"),
}


def read_alias(name: str, table: object) -> ModelAlias:
    """One `[models.NAME]` table as an alias. Raises ChangeRequest naming the table and the field that is wrong."""
    values = _checked(f"models.{name}", table, _FIELDS)
    sampling = _read_sampling(f"models.{name}.sampling", values.pop("sampling", {}), values["output_limit"])
    for field, known in (("response_formats", get_args(ResponseForm)), ("vector_stores", None)):
        values[field] = _words(f"models.{name}", field, values.get(field, ()), known)
    alias = ModelAlias(name=name, sampling=sampling, **values)
    if alias.window <= alias.output_limit:
        reason = f"the window of {alias.window} tokens leaves no room beside an answer of {alias.output_limit}"
        raise _wrong(f"models.{name}", "window", reason)
    _check_base_url(alias)
    _check_opens(alias, "provider", lambda: provider_class(alias.provider))
    _check_opens(alias, "tokenizer", lambda: open_tokenizer(alias.tokenizer))
    if alias.chat_template is not None and not Path(alias.chat_template).is_file():
        raise _wrong(f"models.{name}", "chat_template", f"there is no file {alias.chat_template!r}")
    return replace(alias, timeout=float(alias.timeout))


def provider_class(name: str) -> Callable[[ModelAlias], LLM]:
    """The class behind a provider's name or `package.module:Class`. Raises Unsupported."""
    if ":" in name:
        return _class_at(name)
    return cast("Callable[[ModelAlias], LLM]", resolve("model provider", PROVIDERS, GROUP, name))


def _class_at(target: str) -> Callable[[ModelAlias], LLM]:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise Unsupported(f"{target!r} cannot be imported: {error}.", code="unknown_name") from error
    if not callable(found):
        raise Unsupported(f"{target!r} is not a class.", code="unknown_name")
    return cast("Callable[[ModelAlias], LLM]", found)


def _read_sampling(table_name: str, table: object, output_limit: int) -> Sampling:
    values = _checked(table_name, table, _SAMPLING_FIELDS)
    stop = values.get("stop", ())
    if not all(isinstance(item, str) for item in stop):
        raise _wrong(table_name, "stop", "it must be a list of strings")
    sampling = Sampling(**{**values, "stop": tuple(stop)})
    try:
        _check_sampling(sampling, output_limit, f"{table_name.removesuffix('.sampling')}.output_limit")
    except ChangeRequest as error:
        raise _wrong(table_name, error.param or "", error.message.rstrip(".")) from error
    return sampling


def _words(table_name: str, field: str, words: Sequence[object], known: Sequence[str] | None) -> tuple[str, ...]:
    """A list of texts, of `known` ones where these are given."""
    good = all(isinstance(word, str) and (word in known if known else word.strip()) for word in words)
    if not good:
        raise _wrong(table_name, field, f"it must be {_FIELDS[field].what}")
    return tuple(map(str, words))


def _checked(table_name: str, table: object, fields: Mapping[str, _Field]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ChangeRequest(f"The setting {table_name} must be a table.", code="bad_settings", param=table_name)
    for name in table:
        if name not in fields:
            raise _unknown_field(table_name, str(name), fields)
    for name, field in fields.items():
        if name not in table and field.required:
            raise _wrong(table_name, name, f"it is missing; it must be {field.what}")
        if name in table and not _fits(table[name], field):
            raise _wrong(table_name, name, f"it must be {field.what}")
    return dict(table)


def _fits(value: object, field: _Field) -> bool:
    if isinstance(value, bool) or not isinstance(value, field.kinds):
        return False
    if isinstance(value, str):
        return bool(value.strip())
    return not isinstance(value, int | float) or (math.isfinite(value) and value >= field.least)


def _unknown_field(table_name: str, name: str, fields: Mapping[str, _Field]) -> ChangeRequest:
    """The value is never repeated: it may be a key."""
    if "key" in name.casefold():
        hint = "keys never stand in the file: put the key into an environment variable and its name into `api_key_env`"
        return _wrong(table_name, name, hint)
    return _wrong(table_name, name, f"there is no such field. Known: {', '.join(fields)}")


def _check_base_url(alias: ModelAlias) -> None:
    if alias.base_url is None:
        return
    try:
        parts = urlsplit(alias.base_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        private = parts.username is not None or parts.password is not None
    except ValueError:
        good, private = False, False
    if not good:
        raise _wrong(f"models.{alias.name}", "base_url", "it must be an http or https URL")
    if private:
        raise _wrong(f"models.{alias.name}", "base_url", "it holds a name or password; use `api_key_env` for a key")


def _check_opens(alias: ModelAlias, field: str, opening: Callable[[], object]) -> None:
    try:
        opening()
    except RagError as error:
        raise _wrong(f"models.{alias.name}", field, error.message.rstrip(".")) from error


def _wrong(table_name: str, field: str, reason: str) -> ChangeRequest:
    where = f"{table_name}.{field}".rstrip(".")
    return ChangeRequest(
        f"The setting `{field}` of [{table_name}] is wrong: {reason}.", code="bad_settings", param=where
    )
