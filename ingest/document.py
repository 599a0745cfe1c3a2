"""What a loader makes of a file: one text, and the blocks that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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
