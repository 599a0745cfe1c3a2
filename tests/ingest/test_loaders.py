"""Each loader on small real files made here: what must come out, what must not, and every promise of the contract."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.document import ParsedDocument, check
from ingest.failures import DocumentFailure
from ingest.loaders import LOADERS, Loader, loader_for
from ingest.loaders.building import usable_title
from ingest.sniff import sniff
from tests.contracts.loader import CHECKS, Sample
from tests.ingest.made_files import docx, line, paragraph, pdf, zipped
from tests.ingest.samples import sample


def parse(folder: Path, name: str, data: bytes | str) -> ParsedDocument:
    """As the sandbox does: sniff, load, check."""
    path = folder / "stored"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    document = loader_for(sniff(path, name))(path, name)
    check(document)
    return document


def code_of(folder: Path, name: str, data: bytes | str) -> str:
    with pytest.raises(DocumentFailure) as caught:
        parse(folder, name, data)
    return caught.value.code


def blocks(document: ParsedDocument) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, document.text[block.start : block.end]) for block in document.blocks]


@pytest.mark.parametrize("check_loader", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("media_type", LOADERS)
def test_contract(media_type: str, check_loader: Callable[[Loader, Sample, Path], None], tmp_path: Path) -> None:
    check_loader(loader_for(media_type), sample(media_type), tmp_path)


@pytest.mark.parametrize("media_type", LOADERS)
def test_each_sample_is_taken_for_what_it_is(media_type: str, tmp_path: Path) -> None:
    (tmp_path / "stored").write_bytes(sample(media_type).data)
    assert sniff(tmp_path / "stored", sample(media_type).name) == media_type


def test_an_unknown_media_type_has_no_loader() -> None:
    with pytest.raises(DocumentFailure, match="image/png"):
        loader_for("image/png")


# Text and Markdown


def test_plain_text_is_verbatim(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.txt", "  One\r\ntwo\rthree\n\n \n\tfour\0  \n")
    assert document.text == "  One\ntwo\nthree\n\n \n\tfour  \n"
    assert [text for _, _, text in blocks(document)] == ["One\ntwo\nthree", "four"]
    assert document.title == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    assert parse(tmp_path, "a.txt", "Größe: 5 € für Émile".encode(encoding)).text == "Größe: 5 € für Émile"


def test_white_space_is_empty(tmp_path: Path) -> None:
    assert code_of(tmp_path, "a.txt", " \n\t\n") == "empty"
    assert code_of(tmp_path, "a.md", "---\ntitle: x\n---\n\n") == "empty"


MARKDOWN = """---
title: "The *guide*"
tags: [a, b]
---
# First {#first}

Text with [a link][1]
over two lines.

- one
  - two

```python
# not a heading

x = 1
```

Second
------

| a | b |
|---|---|
| 1 | 2 |

[1]: http://example.org
"""


def test_markdown_keeps_its_source(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.md", MARKDOWN)
    assert document.title == "The *guide*"
    assert document.text == MARKDOWN.split("---\n", 2)[2]
    assert blocks(document) == [
        ("heading", 1, "# First {#first}"),
        ("paragraph", 0, "Text with [a link][1]\nover two lines."),
        ("list", 0, "- one\n  - two"),
        ("code", 0, "```python\n# not a heading\n\nx = 1\n```"),
        ("heading", 2, "Second\n------"),
        ("table", 0, "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("paragraph", 0, "[1]: http://example.org"),
    ]


def test_markdown_title_from_its_heading(tmp_path: Path) -> None:
    assert parse(tmp_path, "secret-path.md", "intro\n\n## The `x` [guide](y.md) ##\n").title == "The x guide"
    assert parse(tmp_path, "a.md", "---\n\nA rule above, not front matter: see.\n\n---\n\nx\n").text.startswith("---")


@given(st.text(alphabet=st.sampled_from("#`|-> \n\t*[]()1.a~=<!\r\u2028é"), max_size=80))
@settings(max_examples=150, deadline=None)
def test_any_markdown_keeps_the_promises(tmp_path_factory: pytest.TempPathFactory, source: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        document = parse(folder, "a.md", source)
    except DocumentFailure:
        assert not source.strip() or source.lstrip().startswith(("---", "<"))
    else:
        kept = "".join(source.split())
        assert "".join(document.text.split()) == kept or source.lstrip().startswith("---")


# HTML

HTML = """<!doctype html><html><head><title>The page</title><style>.gone {display: none}
@media print { .seen { display: none } }</style><script>HIDDEN()</script></head><body>
<h1>Top</h1><p>Some <b>bold</b>
  text<br>and a line.<!-- HIDDEN --></p>
<p class=gone>HIDDEN</p><p class=seen>Shown.</p><div hidden>HIDDEN</div>
<p style="display : none">HIDDEN</p><p>a<span style="font-size:0px">HIDDEN</span>b</p>
<p style="color:#FFF; background: white">HIDDEN</p><p style="position:absolute; left:-9999px">HIDDEN</p>
<p style="font-size: 0.9em">Small.</p><p style="opacity:0">HIDDEN</p><p style="visibility:hidden">HIDDEN</p>
<ol><li>one<ul><li>deep</li></ul></li><li>two</li></ol>
<table><caption>Sizes</caption><tr><th>Name</th><th>Size</th></tr><tr><td>A<br>B</td><td>1</td></tr></table>
<pre>def f():
    return 1</pre><h3>Low</h3>tail</body></html>"""


def test_html_is_what_a_reader_sees(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.html", HTML)
    assert "HIDDEN" not in document.text
    assert document.title == "The page"
    assert blocks(document) == [
        ("heading", 1, "Top"),
        ("paragraph", 0, "Some bold text\nand a line."),
        ("paragraph", 0, "Shown."),
        ("paragraph", 0, "ab"),
        ("paragraph", 0, "Small."),
        ("list", 0, "1. one\n  - deep\n2. two"),
        ("table", 0, "Sizes\nName | Size\nA B | 1"),
        ("code", 0, "def f():\n    return 1"),
        ("heading", 3, "Low"),
        ("paragraph", 0, "tail"),
    ]


def test_html_white_text_on_an_unstyled_page(tmp_path: Path) -> None:
    page = "<html><body><p>Seen</p><p style='color:white'>HIDDEN</p><div bgcolor=black><font color=white>Light"
    assert parse(tmp_path, "a.html", page).text == "Seen\n\nLight"


def test_html_layout_tables_are_walked(tmp_path: Path) -> None:
    page = "<html><body><table><tr><td><h2>Head</h2><table><tr><td>a</td><td>b</td></tr></table></td></tr></table>"
    assert blocks(parse(tmp_path, "a.html", page)) == [("heading", 2, "Head"), ("table", 0, "a | b")]


def test_html_nested_without_end(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.html", "<html><body>start" + "<div><b>" * 100_000 + "x")
    assert document.text.startswith("start")


def test_html_encodings(tmp_path: Path) -> None:
    page = "<html><head><meta charset='windows-1251'></head><body>Привет</body></html>"
    assert parse(tmp_path, "a.html", page.encode("cp1251")).text == "Привет"


def test_html_without_text(tmp_path: Path) -> None:
    assert (
        code_of(tmp_path, "a.html", "<html><head><title>t</title></head><body><img src=x></body></html>") == "no_text"
    )


# PDF


def test_pdf_pages_paragraphs_and_headings(tmp_path: Path) -> None:
    body = [line(f"This is line {n} of the first paragraph of the text.", 700 - 14 * n) for n in range(4)]
    after = [line(f"And here line {n} of the second paragraph, lower down.", 600 - 14 * n) for n in range(4)]
    first = line("Big Heading", 740, 20) + "".join(body) + "".join(after)
    document = parse(tmp_path, "a.pdf", pdf([first, "", line("Last page.", 700)], info="/Title (The Report)"))
    assert document.title == "The Report"
    kinds = [(block.kind, block.level, block.page) for block in document.blocks]
    assert kinds == [("heading", 1, 1), ("paragraph", 0, 1), ("paragraph", 0, 1), ("paragraph", 0, 3)]
    assert blocks(document)[0][2] == "Big Heading"
    assert blocks(document)[1][2].count("\n") == 3
    assert blocks(document)[3][2] == "Last page."


def test_pdf_failures_have_their_codes(tmp_path: Path) -> None:
    assert code_of(tmp_path, "a.pdf", b"%PDF-1.4\ntruncated") == "invalid_file"
    with pytest.raises(DocumentFailure, match=r"^The PDF has no pages\.$") as caught:
        parse(tmp_path, "a.pdf", pdf([]))
    assert caught.value.code == "invalid_file"
    assert code_of(tmp_path, "a.pdf", pdf(["0 0 100 100 re f"])) == "no_text"


def test_pdf_passwords(tmp_path: Path) -> None:
    assert parse(tmp_path, "a.pdf", encrypted_pdf("", "owner")).text == "Text."
    assert code_of(tmp_path, "a.pdf", encrypted_pdf("user", "owner")) == "encrypted"


def encrypted_pdf(user: str, owner: str) -> bytes:
    """Encrypted with the standard handler, revision 2 (RC4, 40 bits), worked out from the specification."""
    from hashlib import md5

    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")

    def padded(password: str) -> bytes:
        return (password.encode() + padding)[:32]

    identity = b"0123456789abcdef"
    owner_entry = rc4(md5(padded(owner)).digest()[:5], padded(user))
    key = md5(padded(user) + owner_entry + (0xFFFFFFFC).to_bytes(4, "little") + identity).digest()[:5]
    user_entry = rc4(key, padding)
    plain = line("Text.", 700).encode()
    content = rc4(md5(key + (5).to_bytes(3, "little") + (0).to_bytes(2, "little")).digest()[:10], plain)
    data = pdf(["@" * len(plain)]).replace(b"@" * len(plain), content)
    entry = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{owner_entry.hex()}> /U <{user_entry.hex()}> /P -4 >> "
    return data.replace(b"/Root 1 0 R", f"/ID [<{identity.hex()}> <{identity.hex()}>] {entry}/Root 1 0 R".encode())


def rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


# Office


def test_docx_structure(tmp_path: Path) -> None:
    item = '<w:numPr><w:ilvl w:val="{}"/><w:numId w:val="3"/></w:numPr>'
    cell = "<w:tc>{}</w:tc>"
    body = (
        paragraph("Section", '<w:pStyle w:val="Mine"/>')
        + "<w:p><w:r><w:t>Seen </w:t></w:r><w:r><w:rPr><w:vanish/></w:rPr><w:t>HIDDEN</w:t></w:r>"
        + "<w:del><w:r><w:delText>HIDDEN</w:delText></w:r></w:del><w:ins><w:r><w:t>added</w:t></w:r></w:ins>"
        + "<w:r><w:instrText>HIDDEN</w:instrText></w:r></w:p>"
        + paragraph("one", item.format(0))
        + paragraph("two", item.format(1))
        + "<w:sdt><w:sdtContent>"
        + paragraph("In a control")
        + "</w:sdtContent></w:sdt><w:p><w:r><w:br w:type='page'/></w:r></w:p><w:tbl>"
        + f"<w:tr>{cell.format(paragraph('Name'))}{cell.format(paragraph('Size'))}</w:tr>"
        + f"<w:tr>{cell.format(paragraph('A'))}{cell.format(paragraph('1') + paragraph('2'))}</w:tr></w:tbl>"
        + "<w:p><w:r><w:t>Anchor</w:t></w:r><w:r><w:pict><w:txbxContent>"
        + paragraph("In a box")
        + "</w:txbxContent></w:pict></w:r></w:p>"
        + "<w:p><w:r><w:t>So</w:t></w:r><m:oMath xmlns:m='m'><m:r><m:t>x=</m:t></m:r><m:f><m:num><m:r><m:t>1</m:t>"
        + "</m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f></m:oMath></w:p>"
    )
    notes = f"<w:footnote w:type='separator'>{paragraph('HIDDEN')}</w:footnote><w:footnote>{paragraph('A note')}"
    document = parse(tmp_path, "a.docx", docx(body, footnotes=f"{notes}</w:footnote>"))
    assert (document.title, document.metadata["author"]) == ("Core title", "Ada")
    assert blocks(document) == [
        ("heading", 2, "Section"),
        ("paragraph", 0, "Seen added"),
        ("list", 0, "- one\n  - two"),
        ("paragraph", 0, "In a control"),
        ("table", 0, "Name | Size\nA | 1 2"),
        ("paragraph", 0, "Anchor"),
        ("paragraph", 0, "In a box"),
        ("paragraph", 0, "So x=1/2"),
        ("paragraph", 0, "A note"),
    ]
    assert [block.page for block in document.blocks[:6]] == [1, 1, 1, 1, 2, 2]


def test_docx_strict_variant(tmp_path: Path) -> None:
    strict = docx(paragraph("Strict text"), strict=True)
    assert b"purl.oclc.org" in zipfile.ZipFile(io.BytesIO(strict)).read("word/document.xml")
    assert parse(tmp_path, "a.docx", strict).text == "Strict text"


def test_unstructured_gets_no_model_and_guesses_no_headings(tmp_path: Path) -> None:
    """Without its own model it would take any short line for a title; with it, it would have downloaded it."""
    from unstructured.nlp import tokenize

    body = paragraph("Quarterly Results") + paragraph("Short Line In Capitals")
    assert [kind for kind, _, _ in blocks(parse(tmp_path, "a.docx", docx(body)))] == ["paragraph", "paragraph"]
    assert tokenize._get_nlp().pipe_names == ["sentencizer"]


def test_entities_stay_inert(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SECRET")
    attack = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{tmp_path}/secret"><!ENTITY a "LOL"><!ENTITY b "{"&a;" * 99}">]>'
    for name, data in (
        ("a.docx", docx(paragraph("Safe &e; &b;"), head=attack)),
        ("a.xml", f"<?xml version='1.0'?>{attack}<r><p>Safe</p><p>&e; &b;</p></r>"),
    ):
        text = parse(tmp_path, name, data).text
        assert "Safe" in text
        assert "SECRET" not in text
        assert "LOL" not in text


def test_zip_bombs_and_wrong_parts(tmp_path: Path) -> None:
    assert code_of(tmp_path, "a.docx", docx("<w:p/>" + " " * 50_000_000)) == "too_large"
    assert code_of(tmp_path, "a.docx", docx("<w:p>")) == "invalid_file"
    assert code_of(tmp_path, "a.docx", zipped(word__other="x")) == "invalid_file"
    assert code_of(tmp_path, "a.docx", docx("<w:p/>")) == "no_text"


def test_pptx(tmp_path: Path) -> None:
    from pptx import Presentation
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE

    show = Presentation()
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "Welcome"
    first.placeholders[1].text_frame.text = "It is good to see you all here today."
    first.notes_slide.notes_text_frame.text = "Smile."
    second = show.slides.add_slide(show.slide_layouts[6])
    table = second.shapes.add_table(2, 2, 0, 0, 9144000, 914400).table
    for row, column, text in ((0, 0, "Name"), (0, 1, "Size"), (1, 0, "A"), (1, 1, "1")):
        table.cell(row, column).text = text
    data = CategoryChartData()
    data.categories = ["2019", "2020"]
    data.add_series("Ducks", (120, 130))
    second.shapes.add_chart(XL_CHART_TYPE.BAR_CLUSTERED, 0, 0, 9144000, 914400, data)
    path = tmp_path / "made.pptx"
    show.save(str(path))
    document = parse(tmp_path, "a.pptx", path.read_bytes())
    assert document.title == "Welcome"
    assert blocks(document) == [
        ("heading", 1, "Welcome"),
        ("paragraph", 0, "It is good to see you all here today."),
        ("paragraph", 0, "Notes: Smile."),
        ("table", 0, "Name | Size\nA | 1"),
        ("table", 0, "Ducks | 2019: 120 | 2020: 130"),
    ]
    assert [block.page for block in document.blocks] == [1, 1, 1, 2, 2]


def test_xlsx(tmp_path: Path) -> None:
    import datetime

    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Prices"
    for row in (["Name", "Price", "Since"], ["Tea\nleaves", 2.0, datetime.datetime(2024, 5, 1)], [None], ["Alone"]):
        sheet.append(row)
    sheet.cell(1_000_000, 3).value = "far"
    book.create_sheet("Empty")
    path = tmp_path / "made.xlsx"
    book.save(path)
    document = parse(tmp_path, "a.xlsx", path.read_bytes())
    assert blocks(document) == [
        ("heading", 1, "Prices"),
        ("table", 0, "Name | Price | Since\nTea leaves | 2 | 2024-05-01"),
        ("paragraph", 0, "Alone"),
        ("paragraph", 0, "far"),
    ]


def test_odt(tmp_path: Path) -> None:
    names = "urn:oasis:names:tc:opendocument:xmlns"
    body = (
        '<t:h t:outline-level="2">Head</t:h><t:p>a<t:s t:c="2"/>b<t:line-break/>c</t:p>'
        "<t:list><t:list-item><t:p>one</t:p><t:list><t:list-item><t:p>two</t:p></t:list-item></t:list></t:list-item></t:list>"
        "<b:table><b:table-row><b:table-cell><t:p>x</t:p></b:table-cell><b:table-cell><t:p>y</t:p></b:table-cell>"
        "</b:table-row></b:table><t:tracked-changes><t:p>HIDDEN</t:p></t:tracked-changes>"
    )
    spaces = f'xmlns:o="{names}:office:1.0" xmlns:t="{names}:text:1.0" xmlns:b="{names}:table:1.0"'
    footer = "<s:master-page><s:footer><t:p>Below</t:p></s:footer></s:master-page>"
    data = zipped(
        mimetype="application/vnd.oasis.opendocument.text",
        content_dot_xml=f"<o:document-content {spaces}><o:body><o:text>{body}</o:text></o:body></o:document-content>",
        styles_dot_xml=(
            f'<o:document-styles {spaces} xmlns:s="{names}:style:1.0"><o:font-face-decls/><o:styles/>'
            f"<o:automatic-styles/><o:master-styles>{footer}</o:master-styles></o:document-styles>"
        ),
    )
    assert blocks(parse(tmp_path, "a.odt", data)) == [
        ("heading", 2, "Head"),
        ("paragraph", 0, "a  b\nc"),
        ("list", 0, "1. one\n  a. two"),
        ("table", 0, "x | y"),
        ("paragraph", 0, "Below"),
    ]


def test_epub_follows_the_spine(tmp_path: Path) -> None:
    page = "<html xmlns='http://www.w3.org/1999/xhtml'><head><title>x</title></head><body><h1>{}</h1></body></html>"
    kind = "application/xhtml+xml"
    items = f'<item id="a" href="a.xhtml" media-type="{kind}"/><item id="b" href="b.xhtml" media-type="{kind}"/>'
    package = (
        "<package xmlns='http://www.idpf.org/2007/opf' xmlns:dc='http://purl.org/dc/elements/1.1/'>"
        "<metadata><dc:title>The Book</dc:title><dc:creator>Ada</dc:creator></metadata>"
        f'<manifest>{items}</manifest><spine><itemref idref="b"/><itemref idref="a"/></spine></package>'
    )
    space = "urn:oasis:names:tc:opendocument:xmlns:container"
    root = '<rootfiles><rootfile full-path="O/p.opf"/></rootfiles>'
    container = f'<container xmlns="{space}">{root}</container>'
    pages = {"O__a_dot_xhtml": page.format("Two"), "O__b_dot_xhtml": page.format("One")}
    parts = {"mimetype": "application/epub+zip", "O__p_dot_opf": package}
    buffer = io.BytesIO(zipped(**parts, **pages))
    with zipfile.ZipFile(buffer, "a") as book:
        book.writestr("META-INF/container.xml", container)
    document = parse(tmp_path, "a.epub", buffer.getvalue())
    assert (document.title, document.text, document.metadata["author"]) == ("The Book", "One\n\nTwo", "Ada")


# Mail


def test_mail(tmp_path: Path) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Grüße aus Köln", "Ada <ada@example.org>", "bob@example.org"
    mail["Date"] = "Mon, 01 Jan 2024 10:00:00 +0000"
    mail.set_content("Hello Bob,\n\nsee the file.\n")
    mail.add_alternative("<html><body><p>Hello Bob,</p><p>see the file.</p></body></html>", subtype="html")
    mail.add_attachment(b"SECRET", maintype="application", subtype="pdf", filename="../../etc/report.pdf")
    document = parse(tmp_path, "a.eml", mail.as_bytes())
    assert document.title == "Grüße aus Köln"
    texts = [text for _, _, text in blocks(document)]
    assert texts[0].splitlines()[0] == "Subject: Grüße aus Köln"
    assert texts[1:] == ["Hello Bob,", "see the file.", "Attachments: report.pdf"]


def test_mail_whose_plain_form_is_a_stub(tmp_path: Path) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "News", "a@b.c"
    mail.set_content("Open in a browser.")
    mail.add_alternative(f"<html><body><p>{'Real news. ' * 20}</p></body></html>", subtype="html")
    assert "Real news." in parse(tmp_path, "a.eml", mail.as_bytes()).text


def test_mail_hides_what_its_reader_does_not_see(tmp_path: Path) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "News", "a@b.c"
    mail.set_content("<html><body><p>Seen.</p><p style='display:none'>HIDDEN</p></body></html>", subtype="html")
    text = parse(tmp_path, "a.eml", mail.as_bytes()).text
    assert "Seen." in text
    assert "HIDDEN" not in text


# Data


def test_csv(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.csv", 'name;note\nA;"two\nlines, quoted"\n;;\nB;x;extra\n')
    assert blocks(document) == [("table", 0, "name | note\nA | two lines, quoted\nB | x | extra")]
    assert parse(tmp_path, "a.tsv", "a\tb\n1\t2\n").text == "a | b\n1 | 2"
    assert code_of(tmp_path, "a.csv", ",,\n,,\n") == "empty"


def test_json(tmp_path: Path) -> None:
    value = {"title": "Order", "paid": True, "lines": [{"name": "Tea", "price": 2.5}, []], "ship": {"to": "Köln"}}
    document = parse(tmp_path, "a.json", json.dumps(value))
    assert document.title == "Order"
    assert [text for _, _, text in blocks(document)] == [
        "title: Order\npaid: true",
        "lines:\n  - name: Tea\n    price: 2.5\n  - []",
        "ship:\n  to: Köln",
    ]
    assert parse(tmp_path, "a.jsonl", '{"a": 1}\n\n{"a": 2}\n').text == "a: 1\n\na: 2"
    assert code_of(tmp_path, "a.json", '{"a": ') == "invalid_file"
    assert code_of(tmp_path, "a.json", "[" * 100_000 + "]" * 100_000) == "invalid_file"


def test_notebook(tmp_path: Path) -> None:
    cells = [{"cell_type": "markdown", "source": ["# Title\n", "text"]}, {"cell_type": "code", "source": "x = 1"}]
    document = parse(tmp_path, "a.ipynb", json.dumps({"cells": cells, "nbformat": 4}))
    assert blocks(document) == [("heading", 1, "# Title"), ("paragraph", 0, "text"), ("code", 0, "x = 1")]


def test_xml(tmp_path: Path) -> None:
    feed = (
        "<?xml version='1.0'?><feed><title>News</title><entry><title>One</title><id>7</id><by>Ada</by>"
        "<body>&lt;p&gt;Some&lt;/p&gt;&lt;p&gt;html&lt;/p&gt;</body></entry></feed>"
    )
    document = parse(tmp_path, "a.xml", feed)
    assert document.title == "News"
    assert [text for _, _, text in blocks(document)] == ["News", "One", "id: 7\nby: Ada", "Some", "html"]


# By pandoc


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.rst", "Guide\n=====\n\nSome *text*.\n\n- one\n- two\n\n.. include:: /etc/passwd\n"),
        ("a.org", "#+TITLE: Guide\n\nSome *text*.\n\n- one\n- two\n"),
    ],
)
def test_pandoc(tmp_path: Path, name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = parse(tmp_path, name, source)
    assert document.title == "Guide"
    assert blocks(document)[:3] == [
        ("heading", 1, "Guide"),
        ("paragraph", 0, "Some text."),
        ("list", 0, "- one\n- two"),
    ]
    assert "root:" not in document.text


def test_rtf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(tmp_path, "a.rtf", r"{\rtf1\ansi First\par Gr\'fc\'dfe {\b bold}\par}").text == "First\n\nGrüße bold"
    russian = (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f1\fcharset204 Arial;}}\par{\f1 \'d3\'e2\'e0\'e6\'e0\'e5\'ec\'fb\'e9}}"
    )
    assert parse(tmp_path, "a.rtf", russian).text == "Уважаемый"


@pytest.mark.parametrize(
    "generic",
    [
        "Untitled",
        "PowerPoint Presentation",
        "Microsoft Word - x.doc",
        "report.docx",
        "C:\\a\\b",
        "/a/b",
        "1",
        "Slide 1",
    ],
)
def test_generic_titles_are_none(generic: str) -> None:
    assert usable_title(generic) == ""


def test_real_titles_stay() -> None:
    assert usable_title("  The\nAnnual  Report 2024 ") == "The Annual Report 2024"
    assert usable_title("Input/output basics") == "Input/output basics"


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_end_in_a_document_or_a_failure(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for name in ("a.txt", "a.html", "a.csv"):
        with contextlib.suppress(DocumentFailure):
            parse(tmp_path_factory.getbasetemp(), name, data)
