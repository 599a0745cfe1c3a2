"""Small files of several formats, made by hand where a library would hide what they hold."""

from __future__ import annotations

import io
import math
import struct
import zipfile


def zipped(**contents: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in contents.items():
            container.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def pdf(pages: list[str], *, info: str = "") -> bytes:
    """A PDF by hand: one content stream per page, Helvetica at `size x y (text)` given in PDF's own operators."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(count))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, content in enumerate(pages):
        fonts = "/Resources << /Font << /F1 3 0 R >> >>"
        box = "/MediaBox [0 0 612 792]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} {fonts} /Contents {5 + 2 * number} 0 R >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    objects.append(f"<< {info} >>")
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"<< /Size {size} /Root 1 0 R /Info {len(objects)} 0 R >>"
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n{trailer}\nstartxref\n{len(out)}\n%%EOF".encode()
    return out


def line(text: str, y: int, size: int = 11) -> str:
    return f"BT /F1 {size} Tf 72 {y} Td ({text}) Tj ET\n"


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def relations(**targets: str) -> str:
    """The parts that another part points to, kind by kind, a kind its own identifier."""
    lines = "".join(
        f'<Relationship Id="{kind}" Type="{RELATIONS}/{kind.rstrip("0123456789")}" Target="{target}"/>'
        for kind, target in targets.items()
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{lines}</Relationships>'
    )


def content_types(**parts: str) -> str:
    """Of an Office package: a part's name to the last words of its type."""
    office = "application/vnd.openxmlformats-officedocument"
    overrides = "".join(
        f'<Override PartName="/{name.replace("__", "/")}.xml" ContentType="{office}.{kind}+xml"/>'
        for name, kind in parts.items()
    )
    kinds = "application/vnd.openxmlformats-package.relationships+xml"
    defaults = f'<Default Extension="rels" ContentType="{kinds}"/><Default Extension="xml" ContentType="text/xml"/>'
    space = "http://schemas.openxmlformats.org/package/2006/content-types"
    return f'<Types xmlns="{space}">{defaults}{overrides}</Types>'


def docx(body: str, *, strict: bool = False, head: str = "", footnotes: str = "") -> bytes:
    styles = (
        '<w:style w:type="paragraph" w:styleId="H2"><w:name w:val="heading 2"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="Mine"><w:name w:val="Mine"/><w:basedOn w:val="H2"/></w:style>'
    )
    core = "http://schemas.openxmlformats.org/package/2006/metadata/core-properties"
    parts = {
        "_rels___dot_rels": relations(officeDocument="word/document.xml"),
        "word__document_dot_xml": f'{head}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
        "word___rels__document_dot_xml_dot_rels": relations(styles="styles.xml", footnotes="footnotes.xml"),
        "word__styles_dot_xml": f'<w:styles xmlns:w="{WORD}">{styles}</w:styles>',
        "word__footnotes_dot_xml": f'<w:footnotes xmlns:w="{WORD}">{footnotes}</w:footnotes>',
        "docProps__core_dot_xml": (
            f'<p xmlns="{core}" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            "<dc:title>Core title</dc:title><dc:creator>Ada</dc:creator></p>"
        ),
    }
    if strict:  # the same parts, their namespaces by the other scheme
        other = {"wordprocessingml/2006": "wordprocessingml", "officeDocument/2006": "officeDocument"}
        for name, part in parts.items():
            for ours, theirs in other.items():
                part = part.replace(
                    f"http://schemas.openxmlformats.org/{ours}/", f"http://purl.oclc.org/ooxml/{theirs}/"
                )
            parts[name] = part
    main = "wordprocessingml.document.main"
    types = content_types(word__document=main, word__styles="wordprocessingml.styles")
    buffer = io.BytesIO(zipped(**parts))
    with zipfile.ZipFile(buffer, "a") as package:
        package.writestr("[Content_Types].xml", types)
    return buffer.getvalue()


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def msg(subject: str, body: str, sender: str) -> bytes:
    """An Outlook message with nothing but these."""
    texts = {0x001A: "IPM.Note", 0x0037: subject, 0x0C1A: sender, 0x1000: body}
    streams, entries = {}, b""
    for number, text in texts.items():
        data = text.encode("utf-16-le")
        streams[f"__substg1.0_{number:04X}001F"] = data
        entries += struct.pack("<HHIII", 0x001F, number, 6, len(data) + 2, 0)
    return ole({"__properties_version1.0": bytes(32) + entries, **streams})


FREE, LAST, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def ole(streams: dict[str, bytes]) -> bytes:
    """A compound file (MS-CFB, version 3) whose root holds these streams, each shorter than 4,096 bytes."""
    mini, mini_table, starts = b"", [], {}
    for name, data in streams.items():
        starts[name] = len(mini_table)
        mini_table += _chain(len(mini_table), math.ceil(len(data) / 64))
        mini += data.ljust(math.ceil(len(data) / 64) * 64, b"\0")
    names = sorted(streams, key=lambda name: (len(name), name.upper()))
    sizes = [math.ceil(128 * (len(names) + 1) / 512), math.ceil(4 * len(mini_table) / 512), math.ceil(len(mini) / 512)]
    places = [1, 1 + sizes[0], 1 + sizes[0] + sizes[1]]
    table = [FAT, *(entry for place, size in zip(places, sizes, strict=True) for entry in _chain(place, size))]
    directory = _entry("Root Entry", 5, child=1, start=places[2], size=len(mini))
    for number, name in enumerate(names, start=1):
        after = number + 1 if number < len(names) else FREE
        directory += _entry(name, 2, right=after, start=starts[name], size=len(streams[name]))
    header = struct.pack(
        "<8s16x5H6x9I",
        *(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 62, 3, 0xFFFE, 9, 6),
        *(0, 1, places[0], 0, 4096, places[1], sizes[1], LAST, 0),
    )
    return b"".join(
        (
            header + struct.pack("<109I", 0, *[FREE] * 108),
            struct.pack("<128I", *table, *[FREE] * (128 - len(table))),
            directory.ljust(512 * sizes[0], b"\0"),
            struct.pack(f"<{len(mini_table)}I", *mini_table).ljust(512 * sizes[1], b"\xff"),
            mini.ljust(512 * sizes[2], b"\0"),
        )
    )


def _chain(start: int, length: int) -> list[int]:
    return [*range(start + 1, start + length), LAST] if length else []


def _entry(name: str, kind: int, *, right: int = FREE, child: int = FREE, start: int, size: int) -> bytes:
    encoded = name.encode("utf-16-le")
    return struct.pack("<64sHBBIII16xI16xIQ", encoded, len(encoded) + 2, kind, 1, FREE, right, child, 0, start, size)
