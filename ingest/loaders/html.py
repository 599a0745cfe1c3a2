"""HTML: what a reader sees, in reading order, with headings, lists, tables and code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.decoding import decode
from ingest.document import ParsedDocument
from ingest.loaders.building import DocumentBuilder, clean, one_line, usable_title

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_NEVER_SHOWN_WORDS = (
    "script style noscript template svg head iframe object embed applet audio video canvas map select "
    "datalist textarea input frameset noframes xml title meta link"
)
_NEVER_SHOWN = frozenset(_NEVER_SHOWN_WORDS.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset(("ul", "ol", "menu", "dir"))
_BLOCKS_WORDS = (
    "p div section article header footer nav aside main blockquote figure figcaption address form fieldset "
    "legend dl dt dd table thead tbody tfoot tr td th caption details summary center hr body html li "
    "hgroup search dialog"
)
_BLOCKS = frozenset(_BLOCKS_WORDS.split())
_ENCODING = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]{0,100}encoding=["']([\w.:-]+)""", re.I
)
_WHITE_SPACE = re.compile(r"[ \t\n\r\f\u200b]+")
_AROUND_BREAK = re.compile(r" *\n *")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_SIMPLE_SELECTOR = re.compile(r"[a-z][a-z0-9]*|[a-z0-9]*[.#][\w-]+")
_ZERO_SIZE = re.compile(
    r"(?:^|;)font(?:-size)?:(?:[a-z ]* )?(?:(?:0|0?\.0\d*)(?:px|pt|em|rem|%)?|(?:0?\.\d+|1)p[xt])(?:[ ;/!]|$)"
)
_NO_SIZE = re.compile(r"(?:^|;)(?:max-)?(?:height|width):0(?:px|pt|em|%)?(?:;|!|$)")
_FAR_AWAY = re.compile(r"(?:^|;)(?:left|top|right|text-indent|margin-left):-\d{4,}(?:\.\d+)?(?:px|pt|em)")
_COLOUR = re.compile(r"(?:^|;)(background-color|background|color):([^;!]+)")
_WHITES = frozenset(("white", "#fff", "#ffffff", "rgb(255,255,255)", "rgba(255,255,255,1)", "#ffffffff"))


def load(path: Path, filename: str) -> ParsedDocument:  # noqa: ARG001 (a loader's signature)
    """The visible text. Raises DocumentFailure `no_text` where nothing is visible."""
    builder = DocumentBuilder()
    data = path.read_bytes()
    page = add_html(builder, decode(data, declared_encoding(data)))
    return builder.build("text/html", title=page.title, metadata=page.metadata)


@dataclass
class Page:
    """What an HTML page says of itself."""

    title: str = ""
    metadata: dict[str, str | None] = field(default_factory=dict)


def declared_encoding(data: bytes) -> str | None:
    """The encoding that a page's first bytes declare, if any."""
    found = _ENCODING.search(data[:4096])
    return (found.group(1) or found.group(2)).decode("ascii") if found else None


def add_html(builder: DocumentBuilder, source: str, *, page: int | None = None) -> Page:
    """Append the visible text of `source` to `builder`; returns the page's own title and metadata.

    The parser builds no tree deeper than its limit and fetches nothing; comments, scripts, styles and what inline
    styles or simple rules of the page's own style sheet hide are left out.
    """
    from lxml import etree

    parser = etree.HTMLParser(
        encoding="utf-8", recover=True, no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    cleaned = clean(source)
    root = etree.fromstring(cleaned.encode(), parser) if cleaned.strip() else None
    if root is None:
        return Page()
    visibility = _Visibility.of(root)
    _Walk(builder, visibility, page).walk(root)
    return _describe(root)


def table_rows(table: Element, visibility: _Visibility | None = None) -> list[str]:
    """The rows of a table that has no table inside, cells joined by ` | `, empty rows left out."""
    shown = visibility or _Visibility()
    rows = []
    for row in table.iter("tr", "caption"):
        cells = [row] if row.tag == "caption" else [cell for cell in row if cell.tag in ("td", "th")]
        texts = [_visible_text(cell, shown) for cell in cells if not shown.hides(cell)]
        if any(texts) and not shown.hides(row):
            rows.append(" | ".join(texts).rstrip())
    return rows


class _Walk:
    """One pass over the tree in document order. Text collects until a block begins or ends."""

    def __init__(self, builder: DocumentBuilder, visibility: _Visibility, page: int | None) -> None:
        self._builder = builder
        self._visibility = visibility
        self._page = page
        self._inline: list[str] = []
        self._heading = 0
        self._lists: list[int | None] = []  # per open list: the number of its last item, None where unnumbered
        self._lines: list[str] = []
        self._prefix = ""

    def walk(self, root: Element) -> None:
        from lxml import etree

        steps = etree.iterwalk(root, events=("start", "end"))
        skipped: Element | None = None
        for event, element in steps:
            if event == "start":
                if self._starts(element):
                    steps.skip_subtree()
                    skipped = element
            else:
                if element is not skipped:
                    self._ends(element)
                if element is not root and element.tail:
                    self._inline.append(_WHITE_SPACE.sub(" ", element.tail))
        self._flush()
        self._end_lists()

    def _starts(self, element: Element) -> bool:
        """Take in an element's beginning; true where what is inside was dealt with or is not wanted."""
        tag = str(element.tag)
        if self._visibility.hides(element):
            return True
        if tag == "br":
            self._inline.append("\n")
        elif tag == "pre":
            self._add("code", "".join(_texts(element, self._visibility)))
            return True
        elif tag == "table" and _is_data(element):
            self._add("table", "\n".join(table_rows(element, self._visibility)))
            return True
        elif tag in _HEADINGS:
            self._flush()
            self._heading = _HEADINGS[tag]
        elif tag in _LISTS:
            self._flush()
            self._lists.append(0 if tag == "ol" else None)
        elif tag in _BLOCKS:
            self._flush()
            if tag == "li":
                self._begin_item()
        if element.text:
            self._inline.append(_WHITE_SPACE.sub(" ", element.text))
        return False

    def _ends(self, element: Element) -> None:
        tag = str(element.tag)
        if tag in _HEADINGS:
            self._flush()
            self._heading = 0
        elif tag in _LISTS:
            self._flush()
            if self._lists:
                self._lists.pop()
            if not self._lists:
                self._end_lists()
        elif tag in _BLOCKS:
            self._flush()

    def _begin_item(self) -> None:
        if not self._lists:
            self._lists.append(None)
        number = self._lists[-1]
        if number is None:
            self._prefix = "- "
        else:
            self._lists[-1] = number + 1
            self._prefix = f"{number + 1}. "

    def _flush(self) -> None:
        """End the stretch of text collected so far."""
        text = _AROUND_BREAK.sub(
            "\n", _WHITE_SPACE.sub(" ", "".join(self._inline).replace("\n", "\v")).replace("\v", "\n")
        )
        self._inline.clear()
        text = text.strip()
        if not text:
            return
        if self._heading:
            self._end_lines()
            self._builder.add("heading", one_line(text), level=self._heading, page=self._page)
        elif self._lists:
            indent = "  " * min(len(self._lists) - 1, 20)
            self._lines.append(indent + (self._prefix or "  ") + text.replace("\n", "\n  " + indent))
            self._prefix = ""
        else:
            self._end_lines()
            self._builder.add("paragraph", text, page=self._page)

    def _add(self, kind: str, text: str) -> None:
        self._flush()
        self._end_lines()
        self._builder.add("table" if kind == "table" else "code", text, page=self._page)

    def _end_lines(self) -> None:
        if self._lines:
            self._builder.add("list", "\n".join(self._lines), page=self._page)
            self._lines.clear()

    def _end_lists(self) -> None:
        self._end_lines()
        self._lists.clear()
        self._prefix = ""


@dataclass(frozen=True)
class _Visibility:
    """What the page hides, as far as inline styles, attributes and its own simple rules say."""

    hiding_rules: frozenset[str] = frozenset()
    assume_white_page: bool = False

    @classmethod
    def of(cls, root: Element) -> _Visibility:
        sheets = ["".join(style.itertext()) for style in root.iter("style")]
        rules = frozenset(selector for sheet in sheets for selector in _hiding_selectors(sheet))
        styled = bool(sheets) or any("stylesheet" in (link.get("rel") or "") for link in root.iter("link"))
        return cls(rules, not styled)

    def hides(self, element: Element) -> bool:
        tag = element.tag
        if not isinstance(tag, str) or tag in _NEVER_SHOWN or "hidden" in element.attrib:
            return True
        style = _tight(element.get("style") or "")
        if style and (_hidden_by(style) or self._same_colours(element, style)):
            return True
        if tag == "font" and self._same_colours(element, f"color:{_tight(element.get('color') or 'inherit')}"):
            return True
        return bool(self.hiding_rules) and not self.hiding_rules.isdisjoint(_own_selectors(element))

    def _same_colours(self, element: Element, style: str) -> bool:
        colour = _colours(style).get("color")
        if colour is None or colour == "inherit":
            return False
        behind = self._background(element)
        return behind is not None and (colour == behind or (colour in _WHITES and behind in _WHITES))

    def _background(self, element: Element) -> str | None:
        """The colour behind an element where that is certain; None where a class or a sheet may set it."""
        at: Element | None = element
        while at is not None:
            colours = _colours(_tight(at.get("style") or ""))
            if "background" in colours:
                return colours["background"]
            if at.get("bgcolor"):
                return _tight(at.get("bgcolor") or "")
            if at.get("class") and not self.assume_white_page:
                return None
            at = at.getparent()
        return "white" if self.assume_white_page else None


def _tight(style: str) -> str:
    return re.sub(r"\s*([:;,!])\s*", r"\1", style.strip().lower())


def _colours(style: str) -> dict[str, str]:
    found = {name: value.strip().replace(" ", "") for name, value in _COLOUR.findall(style)}
    if "background-color" in found:
        found["background"] = found.pop("background-color")
    return found


def _hidden_by(style: str) -> bool:
    """Whether a tightened declaration list takes the text out of sight."""
    plain = (
        "display:none" in style
        or "visibility:hidden" in style
        or re.search(r"(?:^|;)opacity:0(?:\.0+)?(?:;|!|$)", style) is not None
        or _ZERO_SIZE.search(style) is not None
        or _FAR_AWAY.search(style) is not None
    )
    return plain or ("overflow:hidden" in style and _NO_SIZE.search(style) is not None)


def _hiding_selectors(sheet: str) -> Iterator[str]:
    """Simple selectors (`p`, `.x`, `#x`, `p.x`) of rules that hide, outside of media queries."""
    outside = re.sub(r"@[^{;]+\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", re.sub(r"/\*.*?\*/", "", sheet, flags=re.S))
    for selectors, declarations in _RULE.findall(outside):
        if _hidden_by(_tight(declarations)):
            for selector in selectors.split(","):
                if _SIMPLE_SELECTOR.fullmatch(selector.strip()):
                    yield selector.strip()


def _own_selectors(element: Element) -> list[str]:
    tag = str(element.tag)
    names = [f".{name}" for name in (element.get("class") or "").split()]
    if element.get("id"):
        names.append(f"#{element.get('id')}")
    return [tag, *names, *(tag + name for name in names)]


def _is_data(table: Element) -> bool:
    """A table of data, as against one that lays out the page."""
    if next(table.iterdescendants("table", "pre", "h1", "h2", "h3", "h4", "h5", "h6"), None) is not None:
        return False
    widths = [sum(1 for cell in row if cell.tag in ("td", "th")) for row in table.iter("tr")]
    if max(widths, default=0) < 2:
        return next(table.iter("th"), None) is not None
    longest = max((len("".join(cell.itertext())) for cell in table.iter("td", "th")), default=0)
    return longest < 2000


def _texts(element: Element, visibility: _Visibility) -> Iterator[str]:
    """The text inside an element in order, hidden parts left out; a `br` is a line break."""
    from lxml import etree

    steps = etree.iterwalk(element, events=("start", "end"))
    for event, inner in steps:
        if event == "start":
            if visibility.hides(inner) and inner is not element:
                steps.skip_subtree()
                continue
            if inner.tag == "br" or (inner.tag in _BLOCKS and inner is not element):
                yield "\n"
            yield inner.text or ""
        elif inner is not element:
            yield inner.tail or ""


def _visible_text(cell: Element, visibility: _Visibility) -> str:
    return one_line("".join(_texts(cell, visibility)))


def _describe(root: Element) -> Page:
    titles = (one_line("".join(title.itertext())) for title in root.iter("title"))
    title = next((text for text in titles if text), "")
    wanted = {"author": "author", "description": "subject", "keywords": "keywords", "date": "date"}
    metadata: dict[str, str | None] = {}
    for meta in root.iter("meta"):
        name = wanted.get((meta.get("name") or "").lower())
        if name and meta.get("content"):
            metadata.setdefault(name, meta.get("content"))
    return Page(usable_title(title), metadata)
