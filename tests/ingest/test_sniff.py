from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from ingest import sniff
from ingest.failures import DocumentFailure


def kind(folder: Path, name: str, data: bytes) -> str:
    path = folder / "stored"
    path.write_bytes(data)
    return sniff.sniff(path, name)


def zipped(*names: str, **contents: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as container:
        for name, content in contents.items():
            container.writestr(name, content)
        for name in names:
            container.writestr(name, "<x/>")
    return buffer.getvalue()


def ole(name: str) -> bytes:
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504 + name.encode("utf-16-le") + b"\0" * 100


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.pdf", b"%PDF-1.7\n1 0 obj", sniff.PDF),
        ("a.txt", b"junk\n%PDF-1.7\n1 0 obj", sniff.PDF),
        ("a.md", b"# The PDF format\n\nIt begins with %PDF-1.7 and so on.\n", sniff.MARKDOWN),
        ("a.pdf", b"<!DOCTYPE html><html><body>no pdf</body></html>", sniff.HTML),
        ("a.txt", b"\n <HTML><body>x</body>", sniff.HTML),
        ("page", b"<div><p>one</p><p>two</p></div>", sniff.HTML),
        ("readme.md", b"<div align=center><p>logo</p></div>\n\n# Title\n", sniff.MARKDOWN),
        ("a.zip", zipped("word/document.xml", "[Content_Types].xml"), sniff.DOCX),
        ("a.docx", zipped("ppt/presentation.xml"), sniff.PPTX),
        ("a", zipped("xl/workbook.xml"), sniff.XLSX),
        ("a.zip", zipped(mimetype="application/epub+zip"), sniff.EPUB),
        ("a.odt", zipped("content.xml", mimetype="application/vnd.oasis.opendocument.text"), sniff.ODT),
        ("a.doc", b"{\\rtf1 hello}", sniff.RTF),
        ("a.msg", ole("__properties_version1.0"), sniff.MSG),
        ("a.txt", b"From: a@b.c\r\nTo: d@e.f\r\nSubject: x\r\nDate: today\r\n\r\nhello", sniff.EML),
        ("a.txt", b"To: the reader\nNote: this is a letter, not a mail.\n", sniff.PLAIN),
        ("a.eml", b"From me Mon Jan 1 00:00:00 2024\nSubject: x\n\nhello", sniff.EML),
        ("a.xml", b"<?xml version='1.0'?><feed/>", sniff.XML),
        ("a.xml", b"<?xml version='1.0'?><!DOCTYPE html><html><p>x</p></html>", sniff.HTML),
        ("a.json", b'{"a": 1}', sniff.JSON),
        ("a.txt", b'{"a": [1, 2]}', sniff.JSON),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', sniff.JSON_LINES),
        ("notes.txt", b"[1] a footnote, not JSON\n", sniff.PLAIN),
        ("a.csv", b"a,b\n1,2\n", sniff.CSV),
        ("table", b"a;b\n1;2\n3;4\n5;6\n", sniff.CSV),
        ("a.tsv", b"a\tb\n1\t2\n", sniff.TSV),
        ("README", b"# Title\n\nSee [this](http://x.y).\n\n## More\n", sniff.MARKDOWN),
        ("README", b"Title\n=====\n\n.. note::\n   x\n", sniff.RST),
        ("a.rst", b"text\n", sniff.RST),
        ("a.org", b"* Title\n", sniff.ORG),
        ("a.txt", "\ufeffGr\u00fc\u00dfe".encode("utf-16"), sniff.PLAIN),
        ("a.txt", "Gr\u00fc\u00dfe aus K\u00f6ln".encode("cp1252"), sniff.PLAIN),
        ("a.txt", "text without a mark".encode("utf-16-le"), sniff.PLAIN),
        ("BMW.txt", b"BMW builds cars", sniff.PLAIN),
        ("MZ.txt", b"MZ is an abbreviation", sniff.PLAIN),
        ("../../etc/passwd\0.md", b"# x\n", sniff.MARKDOWN),
    ],
)
def test_kinds(tmp_path: Path, name: str, data: bytes, expected: str) -> None:
    assert kind(tmp_path, name, data) == expected


@pytest.mark.parametrize("data", [b"<!-- a -->" * 6000 + b"<", b"<?xml?>" + b"<!-- a -->" * 6000, b"<" * 60000])
def test_nothing_backtracks(tmp_path: Path, data: bytes) -> None:
    """Each of these took a pattern with a loop inside a loop longer than a minute."""
    assert kind(tmp_path, "a.xml", data) in (sniff.XML, sniff.PLAIN)


@pytest.mark.parametrize(
    ("name", "data", "code", "says"),
    [
        ("a.md", b"", "empty", "0 bytes"),
        ("a.txt", b"MZ\x90\0\x03\0\0\0" + bytes(range(256)), "unsupported_file", "program"),
        ("a.pdf", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "unsupported_file", "OCR"),
        ("a.docx", b"PK\x03\x04 cut short", "invalid_file", "damaged"),
        ("a.zip", zipped("a.txt"), "unsupported_file", "Unpack"),
        (
            "a.numbers",
            zipped("QuickLook/Thumbnail.jpg", "buildVersionHistory.plist", "index.xml"),
            "unsupported_file",
            "PDF",
        ),
        ("a.pages", zipped("Index/Document.iwa"), "unsupported_file", "an Apple iWork document"),
        ("a.ods", zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"), "unsupported_file", "XLSX"),
        ("a.doc", ole("WordDocument"), "unsupported_file", "DOCX"),
        ("a.xls", ole("Workbook"), "unsupported_file", "XLSX"),
        ("a.ppt", ole("PowerPoint Document"), "unsupported_file", "PPTX"),
        ("a.docx", ole("EncryptedPackage"), "encrypted", "password"),
        ("a.txt", bytes(range(256)) * 20, "unsupported_file", ".txt"),
        ("a.mbox", b"From a@b.c Mon Jan 1 00:00:00 2024\nSubject: x\n\nhello", "unsupported_file", "Split"),
        ("a.svg", b"<?xml version='1.0'?><svg/>", "unsupported_file", "image"),
    ],
)
def test_refusals_say_what_to_do(tmp_path: Path, name: str, data: bytes, code: str, says: str) -> None:
    with pytest.raises(DocumentFailure, match=says) as caught:
        kind(tmp_path, name, data)
    assert (caught.value.code, caught.value.retryable) == (code, False)
