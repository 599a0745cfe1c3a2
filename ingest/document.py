"""What a loader makes of a file: one text, and the blocks that it is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

BlockKind = Literal["heading", "paragraph", "list", "table", "code"]


@dataclass(frozen=True)
class Block:
    """A stretch of the text with a role.

    `start` and `end` are character positions (Python string indices); `level` is 1 to 6 for a heading and 0
    for everything else; `page` counts from 1 (a slide, a sheet) where the format has pages.
    """

    start: int
    end: int
    kind: BlockKind
    level: int = 0
    page: int | None = None


@dataclass(frozen=True)
class ParsedDocument:
    """The text of a file with its structure.

    Blocks ascend, never overlap, and every character outside of them is white space. The text has no NUL, no lone
    surrogate and `\\n` as its only line break.
    """

    text: str
    title: str
    """From the content, never from the path; "" where the content names none."""
    media_type: str
    blocks: tuple[Block, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the format says of itself (author, date, subject) and `warnings`, if any."""


LINE_BREAKS_OTHER_THAN_NEWLINE = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_KINDS = frozenset(get_args(BlockKind))
_FORBIDDEN = re.compile(f"[\\0{LINE_BREAKS_OTHER_THAN_NEWLINE}\\ud800-\\udfff]")


def check(document: ParsedDocument) -> None:
    """Raise ValueError, saying what is wrong, unless `document` keeps every promise of its class.

    Used by the tests of each loader, and on what a parser process sends back before anything trusts it.
    """
    _require(type(document.text) is str and type(document.title) is str, "text and title are strings")
    _require(type(document.media_type) is str and "/" in document.media_type, "media_type is type/subtype")
    for name, value in (("text", document.text), ("title", document.title)):
        if found := _FORBIDDEN.search(value):
            raise ValueError(f"{name} holds {found.group()!r} at {found.start()}")
    for key, value in document.metadata.items():
        _require(type(key) is str and type(value) is str, "metadata maps strings to strings")
        _require(not _FORBIDDEN.search(key) and not _FORBIDDEN.search(value.replace("\n", "")), "metadata is clean")
    end = 0
    for number, block in enumerate(document.blocks):
        _check_block(number, block)
        _require(end <= block.start < block.end <= len(document.text), f"block {number} is out of order or range")
        _check_gap(document.text, end, block.start)
        _require(not document.text[block.start : block.end].isspace(), f"block {number} is only white space")
        end = block.end
    _check_gap(document.text, end, len(document.text))


def _check_block(number: int, block: Block) -> None:
    _require(type(block.start) is int and type(block.end) is int, f"block {number} has integer positions")
    _require(block.kind in _KINDS, f"block {number} has the unknown kind {block.kind!r}")
    allowed = range(1, 7) if block.kind == "heading" else range(1)
    _require(type(block.level) is int and block.level in allowed, f"block {number} has level {block.level!r}")
    good_page = block.page is None or (type(block.page) is int and block.page >= 1)
    _require(good_page, f"block {number} has page {block.page!r}")


def _check_gap(text: str, start: int, end: int) -> None:
    gap = text[start:end]
    _require(not gap or gap.isspace(), f"text outside of blocks at {start}: {gap[:40]!r}")


def _require(condition: bool, promise: str) -> None:
    if not condition:
        raise ValueError(f"a parsed document breaks its promise: {promise}")
