"""What `rag ask` prints below an answer."""

from __future__ import annotations

import pytest

from api.commands.ask import _print_citations


def test_every_span_of_a_number_is_listed_below_its_file_once(capsys: pytest.CaptureFixture[str]) -> None:
    place = {"title": "Pets", "filename": "pets.md", "heading_path": [], "page": None}
    spans = [(1, 40, 55, "Cats purr when\nthey can."), (1, 1000, 1200, "Dogs bark. " * 20), (1, 40, 55, "Cats")]
    citations = [place | {"number": n, "start": a, "end": b, "quote": quote} for n, a, b, quote in spans]
    _print_citations({"citations": citations})
    first, *quoted = capsys.readouterr().out.splitlines()
    assert first == "[1] Pets (pets.md)"
    assert quoted[0] == "    characters 40 to 55: Cats purr when they can."
    assert quoted[1].startswith("    characters 1,000 to 1,200: Dogs bark. Dogs")
    assert quoted[1].endswith(" …")
    assert len(quoted) == 2
