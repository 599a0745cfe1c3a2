"""Links in an answer: only those that stand in the passages may leave.

A retrieved text can tell a model to write an image or a link whose address carries what the model knows ("EchoLeak",
CVE-2025-32711); showing such an answer is enough to send it. So an address that does not occur verbatim in a passage
is taken out, whichever way it is written, while the words of the link stay:

    [click](http://elsewhere/?q=secret)   click             inline links and images
    [ref]: http://elsewhere               [ref] : (link removed)   reference definitions no longer define
    <http://elsewhere>, http://elsewhere  (link removed)    autolinks and bare addresses
    <img src="//elsewhere">                                 raw HTML with attributes, or that could run

The work is done while the answer streams: what is held back is bounded, and the result does not depend on how the
stream was cut. Code (spans, fenced blocks) keeps its brackets and tags as far as nothing in them could be an address.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

REMOVED_LINK = "(link removed)"
LONGEST_LINK = 2048
"""Characters held back at most, to see where a link or tag ends."""
LONGEST_SPAN = 400
"""Characters of an inline code span; what is longer is read as prose."""
LONGEST_LABEL = 200
"""Characters of a link's words that are held back; around longer ones the brackets stay."""


@dataclass(frozen=True)
class Piece:
    """Text that may go out; `code` when it stands in a code span or a fenced block."""

    text: str
    code: bool = False


_STARTS = ("http://", "https://", "ftp://", "ftps://", "ws://", "wss://", "file://", "www.", "://", "//", "mailto:")
_PREFIXES = frozenset(start[:length] for start in _STARTS for length in range(1, len(start)))
_LONGEST_START = max(map(len, _STARTS))
_ADDRESS = "|".join(re.escape(start) for start in sorted(_STARTS, key=len, reverse=True))
_ADDRESS_START = re.compile(_ADDRESS, re.IGNORECASE)
_ADDRESS_BODY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\])?[^\s<>\"`\[\]{}|\\^，。、；：！？）】」』]*")
_PROSE = re.compile(rf"{_ADDRESS}|[`~<!\[\]】\\]", re.IGNORECASE)
_OPENER = r"[(\"'=][ \t]{0,40}"
_CODE = re.compile(rf"{_OPENER}[/\\]{{2}}|{_ADDRESS}|[<\]]", re.IGNORECASE)
_SLASHES = re.compile(rf"({_OPENER})([/\\]{{2}}[^\s<>\"'`)]*)")
_HOST = re.compile(r"//[\w-]+(?:\.[\w-]+)+")
_TRAILING = ".,;:!?'\")*_~"

_INFO = re.compile(r"\s*[\w+#.-]*\s*")
_LINE_PREFIX = re.compile(r"[ \t>*+\-0-9.)]*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_LABEL = re.compile(r"!?\[([^\[\]\n`<]*)\]")
_MARKER_LABEL = re.compile(r"[\s\d^,;&–—\u00b2\u00b3\u00b9\u2070-\u209c\u2460-\u24ff-]+(?:†.*)?")
_DESTINATION = re.compile(
    r"\(\s*(?P<to><[^<>\n]*>|(?:[^\s()<>\\]|\\.|\((?:[^\s()\\]|\\.)*\))*)"
    r"(?:\s+(?:\"[^\"]*\"|'[^']*'|\([^()]*\)))?\s*\)",
    re.DOTALL,
)
_TAG = re.compile(r"<[A-Za-z/!?][^<>]*>")
_TAG_NAME = re.compile(r"</?([A-Za-z][^\s/>]*)")
_AUTOLINK = re.compile(r"<[A-Za-z][A-Za-z0-9+.-]*:[^\s<>]*>|<[^\s<>@]+@[^\s<>@]+>")
_RUNS = re.compile(r"\bon\w+\s*=|(?:javascript|vbscript|data)\s*:|\bstyle\s*=", re.IGNORECASE)
_MAY_LEAD_OUT = re.compile(r"[/:&\\%]")
_ACTIVE_TAG = re.compile(
    "applet|audio|base|body|button|embed|form|frame|frameset|head|html|iframe|input|link|math|meta|object|option|portal|"
    "script|select|source|style|svg|template|textarea|title|track|video|.*:.*",
    re.IGNORECASE,
)


class LinkGuard:
    """The filter between a model and its reader; see the top of this file."""

    def __init__(self, texts: Sequence[str], code: bool = False, quoted: bool = False) -> None:
        """`texts` are the passages: what an address must occur in to pass. `code`: all that comes is code. `quoted`:
        it is a stretch of a passage, whose `[1](…)` is no citation and whose `]:` and `](` lead where it leads.
        """
        self._known = "\n".join(texts)
        self._held = ""
        self._final = False
        self._only_code = code
        self._quoted = quoted
        self._fence = ""
        self._last = ""
        self._fresh = True  # the line holds nothing yet but indentation, quotes and list marks

    def feed(self, text: str) -> list[Piece]:
        """Take the next piece of the stream; give what may go out."""
        pieces: list[Piece] = []
        for start in range(0, len(text), LONGEST_LINK):
            self._held += text[start : start + LONGEST_LINK]
            pieces += self._drain()
        return pieces

    def finish(self) -> list[Piece]:
        """The stream has ended: give the rest."""
        self._final = True
        return self._drain()

    def _drain(self) -> list[Piece]:
        pieces: list[Piece] = []
        while self._held:
            step = self._code_step() if self._fence or self._only_code else self._prose_step()
            if step is None:
                break
            taken, out = step
            self._fresh = self._still_fresh(self._held[:taken])
            self._held = self._held[taken:]
            for piece in out:
                if piece.text:
                    pieces.append(piece)
                    self._last = piece.text[-1]
        return pieces

    def _still_fresh(self, taken: str) -> bool:
        before, newline, line = taken.rpartition("\n")
        fresh = bool(newline) or (self._fresh and not (taken and self._fence))
        return fresh and _LINE_PREFIX.fullmatch(line if newline else before + line) is not None

    # Each step looks at the start of what is held and says how much of it to take and what to put out for it, or None
    # when that depends on what is still to come.

    def _prose_step(self) -> _Step | None:
        found = _PROSE.search(self._held)
        if found is None or found.start():
            return self._plain(found, code=False)
        first = found.group()
        if len(first) > 1:
            return self._address(first, code=False)
        if first in "`~":
            return self._backticks(first)
        if first == "<":
            return self._tag()
        if first == "\\":
            return self._backslash()
        if first in "[!":
            return self._bracket()
        return self._after_bracket(code=False)

    def _code_step(self) -> _Step | None:
        if self._fence and self._fresh and (step := self._fence_line()) is not _NOT_A_FENCE:
            return step
        found = _CODE.search(self._held)
        line_end = self._held.find("\n")
        if line_end >= 0 and (found is None or found.start() > line_end):
            return line_end + 1, [Piece(self._held[: line_end + 1], code=True)]
        if found is None or found.start():
            return self._plain(found, code=True)
        first = found.group()
        if first == "<":
            return self._tag_in_code()
        if first == "]":
            return self._after_bracket(code=True)
        return self._slashes() if first[0] in "(\"'=" else self._address(first, code=True)

    def _plain(self, found: re.Match[str] | None, code: bool) -> _Step | None:
        """Text up to the next thing of note; its end waits while it may begin an address."""
        if found is not None:
            return found.start(), [Piece(self._held[: found.start()], code)]
        keep = 0 if self._final else self._unfinished(code)
        taken = len(self._held) - keep
        return (taken, [Piece(self._held[:taken], code)]) if taken else None

    def _unfinished(self, code: bool) -> int:
        tail = self._held[-_LONGEST_START:].lower()
        keep = next((len(tail) - i for i in range(len(tail)) if tail[i:] in _PREFIXES), 0)
        if code and (opening := re.search(rf"{_OPENER}[/\\]?$", self._held)):
            keep = max(keep, len(self._held) - opening.start())
        return keep

    def _slashes(self) -> _Step | None:
        """`"//host` in code: where the reader's renderer sees no code, it is an address without a scheme."""
        window = self._held[:LONGEST_LINK]
        found = _SLASHES.match(window)
        assert found is not None
        if found.end() == len(self._held) < LONGEST_LINK and not self._final:
            return None
        address = found.group(2)
        known = len(address) == 2 or address in self._known
        return found.end(), [Piece(found.group() if known else found.group(1) + REMOVED_LINK, code=True)]

    def _address(self, start: str, code: bool) -> _Step | None:
        window = self._held[:LONGEST_LINK]
        if window[len(start) :].startswith("[") and len(window) < len(start) + 60 and not self._final:
            return None  # an IPv6 address, perhaps
        body = _ADDRESS_BODY.match(window, len(start))
        assert body is not None
        end = body.end()
        if end == len(self._held) and not self._final:
            return None
        if end == len(window) == LONGEST_LINK:
            return end, [Piece(REMOVED_LINK + " ", code)]
        after = window[end : end + 1]
        whole = window[:end]
        for address in (whole, whole.rstrip(_TRAILING)):
            if len(address) > len(start) and address in self._known:
                apart = " " if after and not after.isspace() and after not in "<>\"`'" and not code else ""
                return end, [Piece(whole + apart, code)]
        bare = not whole[len(start) :].strip(_TRAILING)  # "www." and nothing more
        if bare or (start == "//" and not _HOST.match(whole)):  # a comment
            return len(start), [Piece(start, code)]
        kept = whole[len(whole.rstrip(_TRAILING)) :]
        return end, [Piece(REMOVED_LINK + kept, code)]

    def _backslash(self) -> _Step | None:
        """An escaped backtick opens no code, and an escaped backslash escapes nothing."""
        if len(self._held) == 1 and not self._final:
            return None
        taken = 2 if self._held[1:2] in ("`", "\\") else 1
        return taken, [Piece(self._held[:taken])]

    def _backticks(self, mark: str) -> _Step | None:
        run = len(self._held) - len(self._held.lstrip(mark))
        if run >= LONGEST_SPAN:
            return LONGEST_SPAN, [Piece(self._held[:LONGEST_SPAN])]
        if run == len(self._held) and not self._final:
            return None
        if self._fresh and run >= 3 and (step := self._open_fence(mark, run)) is not _NOT_A_FENCE:
            return step
        return self._span(run) if mark == "`" else (run, [Piece(self._held[:run])])

    def _open_fence(self, mark: str, run: int) -> _Step | None:
        window = self._held[:LONGEST_LINK]
        end = window.find("\n", run)
        info = window[run : end if end >= 0 else None]
        if mark == "`" and "`" in info:
            return _NOT_A_FENCE
        if end < 0:
            return _NOT_A_FENCE if self._final or len(window) == LONGEST_LINK else None
        self._fence = mark * run
        return end + 1, [Piece(window[: end + 1] if _INFO.fullmatch(info) else f"{self._fence}\n", code=True)]

    def _span(self, run: int) -> _Step | None:
        window = self._held[:LONGEST_SPAN]
        close = re.compile(rf"(?<!`)`{{{run}}}(?!`)").search(window, run)
        blank = _BLANK_LINE.search(window, run)
        settled = self._final or len(self._held) > LONGEST_SPAN
        if close and close.end() == len(window) and not (self._final and len(window) == len(self._held)):
            close = None  # one more backtick would make another run of it
        if blank and (close is None or blank.start() < close.start()):
            close, settled = None, True
        if close is None:
            return (run, [Piece(window[:run])]) if settled else None
        inside = LinkGuard([self._known], code=True)
        pieces = [*inside.feed(window[run : close.start()]), *inside.finish()]
        text = window[:run] + "".join(piece.text for piece in pieces) + close.group()
        return close.end(), [Piece(text, code=True)]

    def _fence_line(self) -> _Step | None:
        """A line that closes the fence; anything else in it is code."""
        line, newline, _ = self._held.partition("\n")
        bare = line.lstrip(" \t>")
        mark = self._fence[0]
        if not bare.strip(mark + " \t"):
            if not newline and not self._final and len(line) < LONGEST_LINK:
                return None
            if bare.strip().startswith(self._fence) and len(line) < LONGEST_LINK:
                self._fence = ""
                return len(line) + len(newline), [Piece(line + newline, code=True)]
        return _NOT_A_FENCE

    def _tag(self) -> _Step | None:
        if len(self._held) == 1:
            return (1, [Piece("<")]) if self._final else None
        if not re.match(r"<[A-Za-z/!?]", self._held):
            return 1, [Piece("<")]
        window = self._held[:LONGEST_LINK]
        tag = _TAG.match(window)
        if tag is not None:
            return tag.end(), [Piece(self._safe_tag(tag.group()) or self._apart())]
        if "<" in window[1:] or len(window) == LONGEST_LINK or self._final:
            return 1, [Piece("&lt;")]
        return None

    def _safe_tag(self, tag: str) -> str:
        if _AUTOLINK.fullmatch(tag):
            known = tag[1:-1] in self._known and not _RUNS.search(tag)
            return tag if known else REMOVED_LINK
        name = _TAG_NAME.match(tag)
        if name is None or _ACTIVE_TAG.fullmatch(name.group(1)) or _RUNS.search(tag):
            return ""
        if re.search(r"[=&\\]", tag):
            return tag if tag in self._known else ""
        return "" if _ADDRESS_START.search(tag) and tag not in self._known else tag

    def _apart(self) -> str:
        """What is put in place of something taken out, so that the words around it do not become one."""
        return " " if self._last.isalnum() else ""

    def _tag_in_code(self) -> _Step | None:
        """A fence that the reader's renderer does not see as one must not let an image through."""
        window = self._held[:LONGEST_SPAN]
        tag = _TAG.match(window)
        if tag is None:
            open_end = not re.search(r"[<>]", window[1:]) and len(window) < LONGEST_SPAN and not self._final
            could_be = re.match(r"<(?:[A-Za-z/!?]|$)", window)
            return None if open_end and could_be else (1, [Piece("<", code=True)])
        text = tag.group()
        leads_out = "=" in text and _MAY_LEAD_OUT.search(text.partition("=")[2].rstrip("/>"))
        harmless = text in self._known or not leads_out
        return 1, [Piece("<" if harmless else "&lt;", code=True)]

    def _bracket(self) -> _Step | None:
        """`[words](address)`: the words stay. Any other bracket goes out as it is, its inside looked at in turn."""
        lead = 1 + (self._held[0] == "!")
        if self._held[0] == "!" and self._held[1:2] != "[":
            return (1, [Piece("!")]) if len(self._held) > 1 or self._final else None
        window = self._held[: LONGEST_LABEL + lead + 1]
        label = _LABEL.match(window)
        if label is None:
            over = len(window) == LONGEST_LABEL + lead + 1 or re.search(r"[\[\]\n`<]", window[lead:]) or self._final
            return (lead, [Piece(self._held[:lead])]) if over else None
        after = self._held[label.end() : label.end() + 1]
        if not after and not self._final:
            return None
        if after != "(":
            return lead, [Piece(self._held[:lead])]
        return self._link(label)

    def _link(self, label: re.Match[str]) -> _Step | None:
        to, settled = self._destination(label.end())
        if to is None:
            lead = label.start(1)
            return (lead, [Piece(self._held[:lead])]) if settled else None
        words, whole = label.group(1), self._held[: to.end()]
        if not self._quoted and _MARKER_LABEL.fullmatch(words):
            return to.end(), [Piece(f"[{words}]")]
        if self._may_go(to) and (words in self._known or not _ADDRESS_START.search(words)):
            return to.end(), [Piece(f"{label.group()}({to['to']})")]
        # The words are prose again, to be looked at with what follows.
        self._held = self._apart() + words + self._held[len(whole) :]
        return 0, []

    def _after_bracket(self, code: bool) -> _Step | None:
        """`]` and what would make it part of a link: `](address)`, `]: address`."""
        if len(self._held) == 1:
            return (1, [Piece(self._held, code)]) if self._final else None
        closing, after = self._held[0], self._held[1]
        if after == ":":
            return self._definition(code)
        if after != "(":
            return 1, [Piece(closing, code)]
        to, settled = self._destination(1, LONGEST_SPAN if code else LONGEST_LINK)
        if to is None:
            runs = _RUNS.search(self._held[:LONGEST_SPAN])
            apart = "" if code or (self._quoted and not runs) else " "
            return (1, [Piece(closing + apart, code)]) if settled else None
        if self._may_go(to) or (code and not _MAY_LEAD_OUT.search(to["to"])):
            return 1, [Piece(closing, code)]
        return to.end(), [Piece(closing, code)]

    def _definition(self, code: bool) -> _Step | None:
        closing = self._held[0]
        if not code and not self._quoted:
            return 2, [Piece(closing + " :")]
        address = re.compile(r"\s*(\S*)").match(self._held[:LONGEST_SPAN], 2)
        assert address is not None
        if address.end() == len(self._held) < LONGEST_SPAN and not self._final:
            return None
        to = address.group(1)
        defines = _MAY_LEAD_OUT.search(to) and (to not in self._known or _RUNS.search(to))
        return 2, [Piece(closing + " :" if defines else closing + ":", code)]

    def _destination(self, at: int, longest: int = LONGEST_LINK) -> tuple[re.Match[str] | None, bool]:
        """The `(address "title")` at `at`, and whether there is nothing to wait for."""
        window = self._held[: at + longest]
        waiting = len(window) < at + longest and not self._final
        if blank := _BLANK_LINE.search(window, at):
            window, waiting = window[: blank.start()], False
        found = _DESTINATION.match(window, at)
        return found, found is not None or not waiting

    def _may_go(self, to: re.Match[str]) -> bool:
        address = to["to"].strip("<>")
        return not _RUNS.match(address) and (not address or address in self._known)


_Step = tuple[int, list[Piece]]
_NOT_A_FENCE: _Step = (-1, [])
