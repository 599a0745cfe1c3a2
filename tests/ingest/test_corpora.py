"""A sample of the public corpora through the sandbox; `tests/benchmarks/parse_corpora.py` takes all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.document import ParsedDocument, check
from ingest.failures import DocumentFailure
from ingest.sandbox import ParseLimits, ParserPool
from tests.benchmarks.parse_corpora import expected_recall, snapshot
from tests.data import shared_data

LISTED = frozenset("pdf docx pptx xlsx html md txt csv tsv json eml msg epub odt rtf rst xml".split())  # noqa: SIM905
WITHOUT_TEXT = frozenset(
    (
        "empty.xlsx",
        "picture.pptx",
        "test-image-jpg-mime.pptx",
        "imagemagick-CCITTFaxDecode.pdf",
        "headerPic.docx",
        "testODTEmbeddedImageLink.odt",
        "testFlashInPDF.pdf",
        "testOCR.pdf",
    )
)
"""Looked at one by one: pictures only, or nothing at all."""


def sample(folder: Path, size: int) -> list[dict[str, Any]]:
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:: max(1, len(lines) // size)]]


def outcome(pool: ParserPool, path: Path) -> ParsedDocument | DocumentFailure:
    try:
        return pool.parse(path, path.name)
    except DocumentFailure as failure:
        return failure


@pytest.fixture
def pool(tmp_path: Path) -> Any:
    with ParserPool(ParseLimits(), tmp_path / "scratch") as made:
        yield made


def test_many_formats(pool: ParserPool) -> None:
    folder = shared_data("multiformat")
    recalls = []
    for entry in sample(folder, 40):
        path = folder / entry["path"]
        listed = path.suffix.lower().lstrip(".") in LISTED
        came = outcome(pool, path)
        if isinstance(came, DocumentFailure):
            right = "no_text" if path.name in WITHOUT_TEXT else "unsupported_file"
            assert came.code == right, (entry["path"], came.message)
            assert not listed or path.name in WITHOUT_TEXT, (entry["path"], came.message)
        else:
            check(came)
            assert path.name not in WITHOUT_TEXT
            recalls += [expected_recall(came.text, folder, entry).get("recall", 1.0)]
    assert sum(recalls) / len(recalls) > 0.97


def test_hostile_files(pool: ParserPool) -> None:
    folder = shared_data("hostile_docs")
    before = snapshot([folder])
    outcomes = []
    for entry in sample(folder, 40):
        path = folder / entry["path"]
        came = outcome(pool, path)
        outcomes.append(came.code if isinstance(came, DocumentFailure) else "completed")
        assert outcomes[-1] not in ("server_error", "parse_timeout"), (entry["path"], came)
        if entry.get("password") and entry.get("password_verified") and path.suffix == ".pdf":
            assert outcomes[-1] == "encrypted", entry["path"]
    assert {"completed", "encrypted", "invalid_file", "unsupported_file"} <= set(outcomes)
    assert snapshot([folder]) == before
    here = Path(__file__)
    assert "hostile" in pool.parse(here, "here.txt").text
