"""The checks that every loader must pass: what its sample file says is known sentence by sentence."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.document import BlockKind, ParsedDocument, check
from ingest.failures import FAILURE_CODES, DocumentFailure
from ingest.loaders import Loader


@dataclass(frozen=True)
class Said:
    """A stretch of a sample's text, and the block that it stands in."""

    text: str
    kind: BlockKind = "paragraph"
    level: int = 0
    page: int | None = None


@dataclass(frozen=True)
class Sample:
    """A file and what it says. The first sentence has characters that are more than one byte, and more than two."""

    name: str
    data: bytes
    media_type: str
    title: str
    said: tuple[Said, ...]
    """In order; no word of the file stands beside them but `besides`."""
    besides: tuple[str, ...] = ()


def load_here(load: Loader, sample: Sample, folder: Path, name: str = "stored") -> ParsedDocument:
    """As the sandbox does, from a file whose name says nothing."""
    path = folder / name
    path.write_bytes(sample.data)
    document = load(path, sample.name)
    check(document)
    return document


def the_text_is_what_the_file_says_in_order(load: Loader, sample: Sample, folder: Path) -> None:
    document = load_here(load, sample, folder)
    rest, at = document.text, 0
    for said in sample.said:
        assert document.text.count(said.text) == 1
        assert (at := document.text.find(said.text, at)) >= 0, said
        rest = rest.replace(said.text, " ")
    for more in sample.besides:
        rest = rest.replace(more, " ", 1)
    assert not [word for word in rest.split() if any(letter.isalnum() for letter in word)]
    assert document.media_type == sample.media_type


def each_sentence_stands_in_its_block(load: Loader, sample: Sample, folder: Path) -> None:
    document = load_here(load, sample, folder)
    for said in sample.said:
        start = document.text.find(said.text)
        [block] = [block for block in document.blocks if block.start <= start < block.end]
        assert said.text in document.text[block.start : block.end]
        assert (block.kind, block.level, block.page) == (said.kind, said.level, said.page)
    ends = [block.end for block in document.blocks if document.text[block.end - 1 : block.end].isspace()]
    assert ends == []


def the_title_is_the_contents(load: Loader, sample: Sample, folder: Path) -> None:
    """The very same comes of the same bytes under another path and another name."""
    document = load_here(load, sample, folder)
    assert document.title == sample.title
    path = folder / "Confidential Plans of the Board.bin"
    path.write_bytes(sample.data)
    ending = sample.name.rpartition(".")[2]
    assert load(path, f"C:\\Users\\ada\\Quarterly Report.{ending}") == document


def a_file_does_not_depend_on_those_before(load: Loader, sample: Sample, folder: Path) -> None:
    first = load_here(load, sample, folder)
    assert load_here(load, sample, folder, "again") == first
    for data in damaged(sample):
        (folder / "damaged").write_bytes(data)
        with contextlib.suppress(Exception):
            load(folder / "damaged", sample.name)
    assert load_here(load, sample, folder) == first


def nothing_is_written(load: Loader, sample: Sample, folder: Path) -> None:
    """Neither into the file, nor beside it, nor where the program happens to stand."""
    path, elsewhere = folder / "alone" / "stored", folder / "elsewhere"
    path.parent.mkdir()
    elsewhere.mkdir()
    path.write_bytes(sample.data)
    path.chmod(0o444)
    before = path.stat()
    with contextlib.chdir(elsewhere):
        load(path, sample.name)
    assert [*path.parent.iterdir(), *elsewhere.iterdir()] == [path]
    assert path.read_bytes() == sample.data
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def damaged(sample: Sample) -> Iterator[bytes]:
    """Cut short, spoilt in the middle, and noise behind the first bytes, by which its kind is known."""
    data, noise = sample.data, random.Random(0).randbytes(600)
    yield data[:12]
    yield data[: len(data) // 2]
    yield data[:-20]
    yield data[: len(data) // 3] + noise[:40] + data[len(data) // 3 + 40 :]
    yield data[:12] + noise
    yield b"\0" * 600


def outcome(load: Loader, sample: Sample, path: Path) -> ParsedDocument | DocumentFailure:
    """What comes of the file. Whatever else a loader raises, the sandbox takes for `invalid_file`."""
    try:
        return load(path, sample.name)
    except DocumentFailure as failure:
        return failure
    except Exception as error:  # noqa: BLE001  (the contract lets it rise)
        return DocumentFailure("invalid_file", str(error) or type(error).__name__)


def a_damaged_file_ends_in_a_failure_or_in_a_text(load: Loader, sample: Sample, folder: Path) -> None:
    path = folder / "stored"
    for data in damaged(sample):
        path.write_bytes(data)
        end = outcome(load, sample, path)
        if isinstance(end, ParsedDocument):
            check(end)
            assert end.blocks, "a file without text is a failure"
        else:
            assert end.code in FAILURE_CODES
            assert end.code not in ("unsupported_file", "parse_timeout", "server_error")
            assert end.message
            assert not end.retryable, "the same bytes fail again"


def a_file_without_text_is_a_failure(load: Loader, sample: Sample, folder: Path) -> None:
    path = folder / "stored"
    for data in (b"", b" \n\t\r\n "):
        path.write_bytes(data)
        end = outcome(load, sample, path)
        assert isinstance(end, DocumentFailure)
        assert end.code in ("empty", "no_text", "invalid_file")


CHECKS = (
    the_text_is_what_the_file_says_in_order,
    each_sentence_stands_in_its_block,
    the_title_is_the_contents,
    a_file_does_not_depend_on_those_before,
    nothing_is_written,
    a_damaged_file_ends_in_a_failure_or_in_a_text,
    a_file_without_text_is_a_failure,
)
