from __future__ import annotations

from dataclasses import replace

import pytest

from ingest.document import Block, ParsedDocument, check

GOOD = ParsedDocument(
    text="Title\n\nbody \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    title="Title",
    media_type="text/plain",
    blocks=(Block(0, 5, "heading", 1, 1), Block(7, 13, "paragraph", 0, 1)),
    metadata={"author": "Ada"},
)


def test_a_good_document_passes() -> None:
    check(GOOD)
    check(replace(GOOD, text="", title="", blocks=()))


@pytest.mark.parametrize(
    "liar",
    [
        replace(GOOD, text=GOOD.text + " tail"),
        replace(GOOD, text="\0" + GOOD.text[1:]),
        replace(GOOD, text=GOOD.text[:8] + "\r" + GOOD.text[9:]),
        replace(GOOD, text=GOOD.text[:8] + "\u2028" + GOOD.text[9:]),
        replace(GOOD, text=GOOD.text[:8] + "\ud800" + GOOD.text[9:]),
        replace(GOOD, title="a\rb"),
        replace(GOOD, title=5),  # type: ignore[arg-type]
        replace(GOOD, media_type="text"),
        replace(GOOD, metadata={"pages": 3}),  # type: ignore[dict-item]
        replace(GOOD, blocks=GOOD.blocks[::-1]),
        replace(GOOD, blocks=(Block(0, 8, "heading", 1), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(0, 5, "heading", 1), Block(7, 14, "paragraph"))),
        replace(GOOD, blocks=(Block(-6, 5, "heading", 1), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(0, 5, "heading", 1), Block(5, 7, "paragraph"), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(0, 5, "heading"), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(0, 5, "heading", 7), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(0, 5, "paragraph", 1), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(0, 5, "picture"), Block(7, 13, "paragraph"))),  # type: ignore[arg-type]
        replace(GOOD, blocks=(Block(0, 5, "heading", 1, 0), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(True, 5, "heading", 1), Block(7, 13, "paragraph"))),
        replace(GOOD, blocks=(Block(0, "5", "heading", 1), Block(7, 13, "paragraph"))),  # type: ignore[arg-type]
    ],
)
def test_liars_fail(liar: ParsedDocument) -> None:
    with pytest.raises(ValueError):
        check(liar)
