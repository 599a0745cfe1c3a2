"""Prompt templates: plain text files with a version and declared variables.

    id: answer
    version: 1
    description: what it is for
    variables: marker, passages, question
    --- system
    The same bytes for every request.
    --- user
    {{marker}} ... {{passages}} ... {{question}}
    --- abstain
    What is said when nothing relevant was found.

`{{variable}}` is replaced by its value in one pass: a value that holds `{{question}}` is not expanded again, and
there is nothing else to a template (no conditions, no attribute access, no code).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexes.errors import ChangeRequest, Unsupported
from rag.context import Message

PACKAGED = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class PromptForm:
    """What a kind of prompt must hold."""

    sections: tuple[str, ...]
    per_request: tuple[str, ...]
    """Variables that change with each request: they stand in the user section, once, and in no other."""


ANSWER = PromptForm(("system", "user", "abstain"), ("marker", "passages", "question"))
STANDALONE = PromptForm(("system", "user"), ("conversation", "question"))


@dataclass(frozen=True)
class Prompt:
    """One version of a prompt template."""

    id: str
    version: str
    hash: str
    """32 hexadecimal digits over the whole file, line breaks as line feeds."""
    description: str
    variables: tuple[str, ...]
    sections: Mapping[str, str]
    """The texts of `system`, `user` and (for answers) `abstain`."""
    path: str
    """Where it was read from, for messages."""


def load_prompt(name: str, folders: Sequence[Path | str] = (), form: PromptForm = ANSWER) -> Prompt:
    """The prompt `name` from the first of `folders` that has `name`.txt, else from those that come with the package.

    Raises Unsupported, naming the known prompts, for an unknown name; ChangeRequest for a file that breaks a rule.
    """
    places = [*map(Path, folders), PACKAGED]
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        for place in places:
            path = place / f"{name}.txt"
            if path.is_file():
                return read_prompt(path, form)
    known = sorted({path.stem for place in places for path in place.glob("*.txt")})
    raise Unsupported(
        f"No prompt is called {name!r}. Known are {', '.join(known)}; to add one, put {name}.txt into the folder "
        f"of prompts that the settings name.",
        code="unknown_prompt",
        param="prompt",
    )


def read_prompt(path: Path, form: PromptForm = ANSWER) -> Prompt:
    """The prompt in this file. Raises ChangeRequest, naming the file and the fault, when it breaks a rule."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _fault(path, f"it cannot be read ({error})") from error
    header, sections = _split(text)
    fields = _fields(path, header)
    prompt = Prompt(
        id=fields["id"],
        version=fields["version"],
        hash=hashlib.sha256(text.encode()).hexdigest()[:32],
        description=fields["description"],
        variables=tuple(name for name in re.split(r"[,\s]+", fields["variables"]) if name),
        sections=sections,
        path=str(path),
    )
    _check(prompt, path, form)
    return prompt


def _split(text: str) -> tuple[str, dict[str, str]]:
    header, *rest = re.split(r"^--- (\w+)[ \t]*\n", text, flags=re.MULTILINE)
    return header, {name: body.strip("\n") for name, body in zip(rest[::2], rest[1::2], strict=True)}


def _fields(path: Path, header: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in header.splitlines() if line.strip())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    for needed in ("id", "version", "description", "variables"):
        if needed not in fields:
            raise _fault(path, f"its header has no line `{needed}:`")
    return fields


def _check(prompt: Prompt, path: Path, form: PromptForm) -> None:
    for section in form.sections:
        if section not in prompt.sections:
            raise _fault(path, f"it has no section `--- {section}`")
    for section, text in prompt.sections.items():
        for variable in _placeholders(text):
            if variable not in prompt.variables:
                raise _fault(path, f"section {section} uses {{{{{variable}}}}}, which `variables:` does not declare")
            if section != "user" and variable in form.per_request:
                raise _fault(path, f"section {section} uses {{{{{variable}}}}}, but must be the same for every request")
    for variable in form.per_request:
        if prompt.sections["user"].count(f"{{{{{variable}}}}}") != 1:
            raise _fault(path, f"section user must hold {{{{{variable}}}}} exactly once")


def _fault(path: Path | str, what: str) -> ChangeRequest:
    return ChangeRequest(
        f"The prompt file {Path(path).name} cannot be used: {what}.", code="invalid_prompt", param="prompt"
    )


_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def _placeholders(text: str) -> list[str]:
    return _PLACEHOLDER.findall(text)


def render(prompt: Prompt, section: str, values: Mapping[str, str]) -> str:
    """One section with its variables replaced.

    Raises ChangeRequest, naming the variable and the file, when a value is missing or nobody declared it.
    """
    for name in values:
        if name not in prompt.variables:
            raise _fault(prompt.path, f"a value was given for {name!r}, which `variables:` does not declare")
    text = prompt.sections[section]
    for name in _placeholders(text):
        if name not in values:
            raise _fault(prompt.path, f"section {section} needs a value for {name!r}, and none was given")
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], text)


def messages(
    prompt: Prompt,
    question: str,
    passages: str,
    marker: str,
    history: Sequence[Message] = (),
    values: Mapping[str, str] | None = None,
) -> tuple[Message, ...]:
    """The conversation for a model: system, history, then the passages with the question last.

    Everything up to `{{marker}}` in the user section is the same for every request with this history, so that a
    provider can reuse its work. `values` are the prompt's further variables.
    """
    values = dict(values or {})
    system = render(prompt, "system", values)
    user = render(prompt, "user", {**values, "marker": marker, "passages": passages, "question": question})
    return (
        {"role": "system", "content": system},
        *({"role": turn["role"], "content": turn["content"]} for turn in history),
        {"role": "user", "content": user},
    )
