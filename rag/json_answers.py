"""Citations in an answer that is JSON: only its strings are looked into, what stands between them is not text.

{"years": [1999], "said": "Two hours [1]."}      one marker, not two
"""

from __future__ import annotations

from collections.abc import Iterator

from rag.citations import CitationFilter
from rag.models import Quote


class JsonCitationFilter(CitationFilter):
    """A CitationFilter for JSON."""

    _inside = False
    _escaped = False

    def feed(self, text: str, quote: Quote | None = None) -> str:
        """See `CitationFilter`; nothing is quoted in JSON."""
        assert quote is None
        return "".join(
            super(JsonCitationFilter, self).feed(run) if inside else self._literally(run)
            for run, inside in self._runs(text)
        )

    def _literally(self, text: str) -> str:
        before = self.finish()
        self._emit(text)
        return before + self._given()

    def _runs(self, text: str) -> Iterator[tuple[str, bool]]:
        """Stretches of text, and whether each lies inside of a string; quotation marks lie outside."""
        start = 0
        for at, letter in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif letter == "\\":
                self._escaped = self._inside
            elif letter == '"':
                end = at if self._inside else at + 1
                if end > start:
                    yield text[start:end], self._inside
                start, self._inside = end, not self._inside
        if start < len(text):
            yield text[start:], self._inside
