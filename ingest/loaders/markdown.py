"""Markdown: the source itself is the text; only the front matter is cut away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.decoding import read_text
from ingest.document import Block, BlockKind, ParsedDocument
from ingest.failures import DocumentFailure
from ingest.loaders.building import clean, clean_metadata, one_line, usable_title
from ingest.loaders.text import paragraphs

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_FRONT_MATTER = re.compile(r"\A\s*(---|\+\+\+)[^\S\n]*\n(.*?)^(?:\1|\.\.\.)[^\S\n]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^(\w[\w-]*)[^\S\n]*[:=][^\S\n]*(\S.*?)[^\S\n]*$", re.MULTILINE)
_MARKS = re.compile(r"^#{1,6}[ \t]+|[ \t]+#+$|\n[=-]+$|[ \t]*\{[ \t]*[#.][^}]*\}$")
_KINDS: dict[str, BlockKind] = {
    "heading_open": "heading",
    "fence": "code",
    "code_block": "code",
    "table_open": "table",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
}


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The source without its front matter. Raises DocumentFailure `empty` where nothing is left."""
    fields, text = split_front_matter(clean(read_text(path)))
    blocks = tuple(find_blocks(text))
    if not blocks:
        raise DocumentFailure("empty", "The file holds only white space or front matter.")
    title = usable_title(fields.pop("title", "")) or _first_heading(text, blocks)
    return ParsedDocument(text, title, "text/markdown", blocks, clean_metadata(fields))


def split_front_matter(text: str) -> tuple[dict[str, str], str]:
    """The single-line fields of YAML (`---`) or TOML (`+++`) front matter, and the text after it.

    >>> split_front_matter("---\\ntitle: 'Cats'\\n---\\n# Hello\\n")
    ({'title': 'Cats'}, '# Hello\\n')
    """
    found = _FRONT_MATTER.match(text)
    if found is None or not _FIELD.search(found.group(2)):
        return {}, text  # a rule between two paragraphs looks the same but holds no fields
    fields = {key.lower(): value.strip("\"'") for key, value in _FIELD.findall(found.group(2))}
    return fields, text[found.end() :]


def find_blocks(text: str) -> Iterator[Block]:
    """The top-level blocks of Markdown `text`; what the parser makes nothing of (link definitions) is a paragraph."""
    starts = _line_starts(text)
    position = 0
    for token in _parser().parse(text):
        if token.level or token.map is None or token.nesting < 0:
            continue
        start, end = starts[token.map[0]], starts[min(token.map[1], len(starts) - 1)]
        if start < position:
            continue
        yield from paragraphs(text, position, start)
        yield from _block(text, start, end, token)
        position = end
    yield from paragraphs(text, position)


def _block(text: str, start: int, end: int, token: Token) -> Iterator[Block]:
    stretch = text[start:end]
    if stretch.strip():
        kind = _KINDS.get(token.type, "paragraph")
        level = int(token.tag[1]) if kind == "heading" else 0
        yield Block(start, start + len(stretch.rstrip()), kind, level)


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(min(starts[-1] + len(line) + 1, len(text)))
    return starts


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # Only block structure is wanted: without the inline rules a line full of brackets costs nothing.
    return MarkdownIt("commonmark").enable("table").disable("inline")


def _first_heading(text: str, blocks: tuple[Block, ...]) -> str:
    for block in blocks:
        if block.kind == "heading":
            return usable_title(_plain(text[block.start : block.end]))
    return ""


def _plain(heading: str) -> str:
    without_marks = _MARKS.sub("", _MARKS.sub("", heading))
    without_links = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", without_marks)
    return one_line(re.sub(r"<[^>]+>|[*`]|\\(?=[^\w\s])", "", without_links))
