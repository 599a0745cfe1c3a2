"""Text and blocks are made here, so that every loader keeps the promises of `ParsedDocument` in the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ingest.document import Block, BlockKind, ParsedDocument
from ingest.failures import DocumentFailure

_LINE_BREAK = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")
_GENERIC_TITLE = re.compile(
    r"(untitled"
    r"|\(?anonymous\)?|\(?unspecified\)?|no ?title|title|(microsoft )?(word|powerpoint)( document| presentation)?"
    r"|presentation|document\d*|slide \d+"
    r"|microsoft \w+ - .*|.*\.(docx?|pptx?|xlsx?|pdf|odt|rtf|tex|dvi|html?|indd|txt|qxd|fm)|.*[/\\].*[/\\].*|[\d\W_]*)",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """`text` with newline as its only line break, without control characters and lone surrogates."""
    text = _LINE_BREAK.sub("\n", text)
    text = _CONTROL.sub("", text)
    return _LONE_SURROGATE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """`text` cleaned, each stretch of white space one space."""
    return _SPACES.sub(" ", clean(text)).strip()


def usable_title(candidate: str | None) -> str:
    """A title as a format's own field gives it, or "" where it is the kind that programs fill in by themselves."""
    title = one_line(candidate or "")[:300]
    return "" if _GENERIC_TITLE.fullmatch(title) else title


class DocumentBuilder:
    """Collects blocks in reading order; a blank line stands between two of them."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Append one block. Its text is cleaned; one that is only white space is left out."""
        text = clean(text).rstrip().strip("\n")
        if not text or text.isspace():
            return
        if kind != "code":
            text = text.lstrip()
        if self._parts:
            self._parts.append("\n\n")
            self._length += 2
        self._blocks.append(Block(self._length, self._length + len(text), kind, level, page))
        self._parts.append(text)
        self._length += len(text)

    @property
    def first_heading(self) -> str:
        """The text of the first heading, on one line, or ""."""
        text = self.text
        return next((one_line(text[b.start : b.end])[:300] for b in self._blocks if b.kind == "heading"), "")

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._parts)

    def __len__(self) -> int:
        return self._length

    def build(
        self, media_type: str, *, title: str | None = None, metadata: Mapping[str, str | None] | None = None
    ) -> ParsedDocument:
        """The document. Raises DocumentFailure `no_text` where no block was added."""
        if not self._blocks:
            raise DocumentFailure("no_text", "The file opened, but no text was found in it.")
        return ParsedDocument(
            text=self.text,
            title=usable_title(title) or usable_title(self.first_heading),
            media_type=media_type,
            blocks=tuple(self._blocks),
            metadata=clean_metadata(metadata or {}),
        )


def clean_metadata(metadata: Mapping[str, str | None]) -> dict[str, str]:
    """The entries that say something, each on one line of at most 1,000 characters."""
    lines = {one_line(key)[:100]: one_line(value)[:1000] for key, value in metadata.items() if value}
    return {key: value for key, value in lines.items() if key and value}
