"""A small file of every kind that has a loader, and what it says."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from functools import cache

from ingest import sniff
from tests.contracts.loader import Said, Sample
from tests.ingest.made_files import docx, line, msg, paragraph, pdf, zipped

FIRST = "Die Straße am Café 🙂 ist 三 Meter breit."
SECOND = "Die Lampe lädt drei Stunden."
THIRD = "Zum Schluss ist alles gut."


def _text() -> Sample:
    said = tuple(map(Said, (FIRST, SECOND, THIRD)))
    return Sample("a.txt", f"{FIRST}\r\n\r\n{SECOND}\r\n\r\n{THIRD}".encode(), sniff.PLAIN, "", said)


def _titled(name: str, source: str | bytes, media_type: str) -> Sample:
    """A heading, a paragraph, a heading of the second level, two paragraphs."""
    said = (Said("Handbuch", "heading", 1), Said(FIRST), Said("Wartung", "heading", 2), Said(SECOND), Said(THIRD))
    data = source.encode() if isinstance(source, str) else source
    return Sample(name, data, media_type, "Handbuch", said)


def _markdown() -> Sample:
    return _titled("a.md", f"# Handbuch\n\n{FIRST}\n\n## Wartung\n\n{SECOND}\n\n{THIRD}\n", sniff.MARKDOWN)


def _html() -> Sample:
    body = f"<h1>Handbuch</h1><p>{FIRST}</p><h2>Wartung</h2><p>{SECOND}</p><p>{THIRD}</p>"
    page = f"<!doctype html><html><head><meta charset=utf-8><title>Handbuch</title></head><body>{body}</body></html>"
    return _titled("a.html", page, sniff.HTML)


def _rst() -> Sample:
    source = f"Handbuch\n========\n\n{FIRST}\n\nWartung\n-------\n\n{SECOND}\n\n{THIRD}\n"
    return _titled("a.rst", source, sniff.RST)


def _org() -> Sample:
    return _titled("a.org", f"* Handbuch\n\n{FIRST}\n\n** Wartung\n\n{SECOND}\n\n{THIRD}\n", sniff.ORG)


def _odt() -> Sample:
    names = "urn:oasis:names:tc:opendocument:xmlns"
    body = (
        f'<t:h t:outline-level="1">Handbuch</t:h><t:p>{FIRST}</t:p><t:h t:outline-level="2">Wartung</t:h>'
        f"<t:p>{SECOND}</t:p><t:p>{THIRD}</t:p>"
    )
    spaces = f'xmlns:o="{names}:office:1.0" xmlns:t="{names}:text:1.0"'
    content = f"<o:document-content {spaces}><o:body><o:text>{body}</o:text></o:body></o:document-content>"
    styles = f"<o:document-styles {spaces}><o:styles/></o:document-styles>"
    data = zipped(mimetype=sniff.ODT, content_dot_xml=content, styles_dot_xml=styles)
    return _titled("a.odt", data, sniff.ODT)


def _epub() -> Sample:
    page = "<html xmlns='http://www.w3.org/1999/xhtml'><head><title>x</title></head><body>{}</body></html>"
    bodies = (f"<h1>Handbuch</h1><p>{FIRST}</p>", f"<h2>Wartung</h2><p>{SECOND}</p><p>{THIRD}</p>")
    items = "".join(f'<item id="p{at}" href="p{at}.xhtml" media-type="application/xhtml+xml"/>' for at in range(2))
    package = (
        "<package xmlns='http://www.idpf.org/2007/opf' xmlns:dc='http://purl.org/dc/elements/1.1/'>"
        f"<metadata><dc:title>Handbuch</dc:title></metadata><manifest>{items}</manifest>"
        '<spine><itemref idref="p0"/><itemref idref="p1"/></spine></package>'
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="O/p.opf"/></rootfiles></container>'
    )
    pages = {f"O__p{at}_dot_xhtml": page.format(body) for at, body in enumerate(bodies)}
    buffer = io.BytesIO(zipped(mimetype=sniff.EPUB, O__p_dot_opf=package, **pages))
    with zipfile.ZipFile(buffer, "a") as book:
        book.writestr("META-INF/container.xml", container)
    return _titled("a.epub", buffer.getvalue(), sniff.EPUB)


def _rtf() -> Sample:
    first = "".join(letter if letter.isascii() else _in_rtf(letter) for letter in FIRST)
    second = SECOND.replace("ä", r"\'e4")
    said = tuple(map(Said, (FIRST, SECOND, THIRD)))
    data = rf"{{\rtf1\ansi\ansicpg1252 {first}\par {second}\par {THIRD}\par}}".encode()
    return Sample("a.rtf", data, sniff.RTF, "", said)


def _in_rtf(letter: str) -> str:
    units = memoryview(letter.encode("utf-16-le")).cast("H")
    return "".join(f"\\u{unit - 65536 * (unit > 32767)}?" for unit in units)


def _docx() -> Sample:
    heading, page = '<w:pStyle w:val="H2"/>', "<w:p><w:r><w:br w:type='page'/></w:r></w:p>"
    body = paragraph("Handbuch", heading) + paragraph(FIRST) + page + paragraph("Wartung", heading)
    said = (
        *(Said("Handbuch", "heading", 2, 1), Said(FIRST, page=1), Said("Wartung", "heading", 2, 2)),
        *(Said(SECOND, page=2), Said(THIRD, page=2)),
    )
    data = docx(body + paragraph(SECOND) + paragraph(THIRD))
    return Sample("a.docx", data, sniff.DOCX, "Core title", said)


def _pptx() -> Sample:
    from pptx import Presentation

    show = Presentation()
    for title, texts in (("Handbuch", [FIRST]), ("Wartung", [SECOND, THIRD])):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text_frame.text = texts[0]
        slide.notes_slide.notes_text_frame.text = "".join(texts[1:])
    buffer = io.BytesIO()
    show.save(buffer)
    said = (
        *(Said("Handbuch", "heading", 1, 1), Said(FIRST, page=1), Said("Wartung", "heading", 1, 2)),
        *(Said(SECOND, page=2), Said(THIRD, page=2)),
    )
    return Sample("a.pptx", buffer.getvalue(), sniff.PPTX, "Handbuch", said, ("Notes:",))


def _xlsx() -> Sample:
    import openpyxl

    book = openpyxl.Workbook()
    sheets = book.active, book.create_sheet("Wartung")
    sheets[0].title = "Handbuch"
    sheets[0].append(["Satz", FIRST])
    sheets[0].append(["Zahl", 12])
    sheets[1].append([SECOND])
    sheets[1].append([])
    sheets[1].append([THIRD])
    buffer = io.BytesIO()
    book.save(buffer)
    said = (
        *(Said("Handbuch", "heading", 1, 1), Said(f"Satz | {FIRST}", "table", 0, 1), Said("Zahl | 12", "table", 0, 1)),
        *(Said("Wartung", "heading", 1, 2), Said(SECOND, page=2), Said(THIRD, page=2)),
    )
    return Sample("a.xlsx", buffer.getvalue(), sniff.XLSX, "Handbuch", said)


def _pdf() -> Sample:
    first = "The café is at the end of the street, three steps from the house."
    second = "The lamp charges for three hours before it shines for a night."
    pages = [
        line("Handbuch", 740, 20) + line(first.replace("é", "\\351"), 700),
        "",
        line("Wartung", 740, 20) + line(second, 700) + line(THIRD, 500),
    ]
    said = (
        *(Said("Handbuch", "heading", 1, 1), Said(first, page=1), Said("Wartung", "heading", 1, 3)),
        *(Said(second, page=3), Said(THIRD, page=3)),
    )
    return Sample("a.pdf", pdf(pages, info="/Title (The Report)"), sniff.PDF, "The Report", said)


def _mail() -> Sample:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Grüße aus Köln 🙂", "Ada <ada@example.org>", "bob@example.org"
    mail.set_content(f"{FIRST}\n\n{SECOND}\n\n{THIRD}\n")
    said = (
        *(Said("Subject: Grüße aus Köln 🙂"), Said("From: Ada <ada@example.org>"), Said("To: bob@example.org")),
        *map(Said, (FIRST, SECOND, THIRD)),
    )
    return Sample("a.eml", mail.as_bytes(), sniff.EML, "Grüße aus Köln 🙂", said)


def _outlook() -> Sample:
    data = msg("Grüße aus Köln 🙂", f"{FIRST}\r\n\r\n{SECOND}\r\n\r\n{THIRD}\r\n", "Ada")
    said = (Said("Subject: Grüße aus Köln 🙂"), *map(Said, (FIRST, SECOND, THIRD)))
    return Sample("a.msg", data, sniff.MSG, "Grüße aus Köln 🙂", said)


def _xml() -> Sample:
    source = f"<?xml version='1.0' encoding='UTF-8'?><book><p>{FIRST}</p><p>{SECOND}</p><p>{THIRD}</p></book>"
    return Sample("a.xml", source.encode(), sniff.XML, "", tuple(map(Said, (FIRST, SECOND, THIRD))))


def _json() -> Sample:
    value = {"title": "Handbuch", "first": {"text": FIRST}, "second": {"text": SECOND}, "third": {"text": THIRD}}
    said = (Said("title: Handbuch"), *(Said(f"text: {text}") for text in (FIRST, SECOND, THIRD)))
    return Sample("a.json", json.dumps(value).encode(), sniff.JSON, "Handbuch", said, ("first:", "second:", "third:"))


def _json_lines() -> Sample:
    lines = "\n".join(json.dumps({"text": text}) for text in (FIRST, SECOND, THIRD))
    said = tuple(Said(f"text: {text}") for text in (FIRST, SECOND, THIRD))
    return Sample("a.jsonl", lines.encode(), sniff.JSON_LINES, "", said)


def _table(name: str, separator: str, media_type: str) -> Sample:
    rows = [("number", "sentence"), ("1", FIRST), ("2", SECOND), ("3", THIRD)]
    data = "\n".join(separator.join(row) for row in rows).encode()
    return Sample(name, data, media_type, "", tuple(Said(" | ".join(row), "table") for row in rows))


_SAMPLES: Mapping[str, Callable[[], Sample]] = {
    sniff.PDF: _pdf,
    sniff.DOCX: _docx,
    sniff.PPTX: _pptx,
    sniff.XLSX: _xlsx,
    sniff.ODT: _odt,
    sniff.EPUB: _epub,
    sniff.RTF: _rtf,
    sniff.RST: _rst,
    sniff.ORG: _org,
    sniff.MSG: _outlook,
    sniff.EML: _mail,
    sniff.HTML: _html,
    sniff.XML: _xml,
    sniff.JSON: _json,
    sniff.JSON_LINES: _json_lines,
    sniff.CSV: lambda: _table("a.csv", ";", sniff.CSV),
    sniff.TSV: lambda: _table("a.tsv", "\t", sniff.TSV),
    sniff.MARKDOWN: _markdown,
    sniff.PLAIN: _text,
}


@cache
def sample(media_type: str) -> Sample:
    """The sample of a media type. Raises KeyError for one that has none."""
    return _SAMPLES[media_type]()
