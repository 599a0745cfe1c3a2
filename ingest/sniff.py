"""What a file is, by what it holds. Its name decides only between kinds of text that look alike.

Reads a bounded part of the file, and of a zip container only its directory.
"""

from __future__ import annotations

import json
import mmap
import re
import zipfile
from pathlib import Path, PurePosixPath

from ingest.decoding import decode, is_text
from ingest.failures import DocumentFailure

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
EPUB = "application/epub+zip"
RTF = "application/rtf"
MSG = "application/vnd.ms-outlook"
EML = "message/rfc822"
HTML = "text/html"
XML = "application/xml"
JSON = "application/json"
JSON_LINES = "application/x-ndjson"
CSV = "text/csv"
TSV = "text/tab-separated-values"
MARKDOWN = "text/markdown"
RST = "text/x-rst"
ORG = "text/x-org"
PLAIN = "text/plain"

SUPPORTED = (
    "PDF, DOCX, PPTX, XLSX, HTML, Markdown, plain text, CSV, TSV, JSON, EML, MSG, EPUB, ODT, RTF, RST, Org and XML"
)

_HEAD = 65_536
_SMALL = 4 * 2**20  # up to here a file may be read whole to tell JSON from text that begins like it

_BY_EXTENSION = {
    **dict.fromkeys(("md", "markdown", "mdown", "mkd", "mdx", "qmd", "rmd"), MARKDOWN),
    **dict.fromkeys(("html", "htm", "xhtml", "shtml"), HTML),
    **dict.fromkeys(("jsonl", "ndjson"), JSON_LINES),
    **dict.fromkeys(("tsv", "tab"), TSV),
    **dict.fromkeys(("eml", "mht", "mhtml"), EML),
    **dict.fromkeys(
        ("txt", "text", "log", "py", "js", "css", "c", "h", "java", "sh", "tex", "vtt", "srt", "adoc"), PLAIN
    ),
    **dict.fromkeys(("asciidoc", "toml", "yaml", "yml", "ini", "cfg", "sql", "go", "rs", "ts", "cpp", "rb"), PLAIN),
    "csv": CSV,
    "json": JSON,
    "ipynb": JSON,
    "geojson": JSON,
    "rst": RST,
    "rest": RST,
    "org": ORG,
    "xml": XML,
    "nxml": XML,
}
_BINARY = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a bitmap image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a program"),
    (b"%!PS", "PostScript"),
    (b"ITSF", "a compiled help file"),
    (b"AT&TFORM", "a DjVu scan"),
    (b"OggS", "audio or video"),
    (b"ID3", "audio"),
    (b"SQLite format 3", "a database"),
    (b"-----BEGIN PGP MESSAGE", "an encrypted message"),
)
_IMAGE = "Only text is read: run it through text recognition (OCR) and upload the result."
_ARCHIVE = "Unpack it and upload the files inside."
_HEADER = re.compile(r"^[A-Za-z][A-Za-z0-9-]{1,60}:(?:[ \t]|$)")
_MAIL_HEADERS_WORDS = (
    "from to cc received return-path delivered-to message-id mime-version date subject reply-to "
    "content-type x-mailer sender dkim-signature"
)
_MAIL_HEADERS = frozenset(_MAIL_HEADERS_WORDS.split())
_MBOX = re.compile(r"\AFrom \S+ .*\d{4}\s*\n[A-Za-z-]+:")
_MBOX_LINE = re.compile(r"\AFrom \S+ .*\d{4}[^\n]*\n")
_HTML_ROOT = re.compile(r"<(?:html|head|body)\b|<!doctype\s+html\b", re.IGNORECASE)
_HTML_TAG = re.compile(
    r"<(?:title|meta|div|p|table|script|style|link|h[1-6]|ul|ol|dl|span|a|b|i|br|hr|img|article"
    r"|section|nav|header|main|form|center|font|pre|blockquote)\b[^<>]*>",
    re.IGNORECASE,
)
_ANY_TAG = re.compile(r"</?(?:p|div|br|table|h[1-6]|ul|li|a|b|span|html|body|pre)\b[^<>]*>", re.IGNORECASE)
_XML_ROOT = re.compile(r"<([\w.:-]+)")
_MARKDOWN_SIGNS = re.compile(r"^(?:#{1,6} \S|```|\|? ?:?-{3,}:? ?\|)|\[[^\]\n]+\]\([^)\s]+\)", re.MULTILINE)
_RST_SIGNS = re.compile(r"^\.\. [\w-]+::|^\S.*\n(?:={4,}|~{4,}|\^{4,})\n", re.MULTILINE)


def sniff(path: Path, filename: str) -> str:
    """The media type of the file at `path`; `filename` (the client's word) is a hint among text formats only.

    Raises DocumentFailure: `empty` for no bytes, `unsupported_file`, `encrypted`, or `invalid_file` where a
    container is too damaged to say what is inside.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise DocumentFailure("empty", "The file is empty (0 bytes).")
    extension = PurePosixPath(filename.replace("\\", "/")).suffix.lower().lstrip(".")
    if _is_pdf(head):
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK00PK")):
        return _inside_zip(path)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _inside_ole(path)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{\\rt"):
        return RTF
    _refuse_binary(head, extension)
    return _kind_of_text(path, decode(head), extension, whole=len(head) < _HEAD)


def unsupported(what: str, advice: str = "") -> DocumentFailure:
    """The failure for a file that is none of ours."""
    advice = advice or f"Convert it to one of: {SUPPORTED}."
    return DocumentFailure("unsupported_file", f"This is {what}, which is not supported. {advice}")


def _is_pdf(head: bytes) -> bool:
    """The mark may stand within the first KiB, behind junk; but text about PDFs is not a PDF."""
    at = head.find(b"%PDF-", 0, 1029)
    if at < 0 or head.startswith((b"MZ", b"PK", b"\x7fELF")):
        return False
    return not head[:at].lstrip(b"\xef\xbb\xbf\0 \t\r\n") or b" obj" in head[at : at + 8192]


def _inside_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as container:
            names = container.namelist()
            declared = _mimetype_entry(container)
    except Exception as error:  # whatever a hostile directory makes zipfile raise
        raise DocumentFailure(
            "invalid_file", f"The file is a damaged zip container and cannot be opened ({error})."
        ) from error
    if declared.startswith(EPUB) or "META-INF/container.xml" in names:
        return EPUB
    if declared.startswith("application/vnd.oasis.opendocument"):
        return _open_document(declared)
    for folder, media_type in (("word/", DOCX), ("ppt/", PPTX), ("xl/", XLSX)):
        if any(name.lower().startswith(folder) for name in names):
            if folder == "xl/" and "xl/workbook.bin" in names:
                raise unsupported("a binary Excel workbook (XLSB)", "Save it as XLSX.")
            return media_type
    if any(
        name.endswith((".iwa", "index.apxl")) or name in ("Index.zip", "buildVersionHistory.plist") for name in names
    ):
        raise unsupported("an Apple iWork document", "Export it as PDF, DOCX, PPTX or XLSX.")
    if "[Content_Types].xml" in names:
        raise unsupported("an Office or XPS package without text that we read", "Export it as PDF or DOCX.")
    raise unsupported("a zip archive", _ARCHIVE)


def _mimetype_entry(container: zipfile.ZipFile) -> str:
    if "mimetype" not in container.namelist() or container.getinfo("mimetype").file_size > 200:
        return ""
    return container.read("mimetype").decode("ascii", "replace").strip()


def _open_document(declared: str) -> str:
    kind = declared.removeprefix("application/vnd.oasis.opendocument.").removesuffix("-template")
    if kind in ("text", "text-master", "text-web"):
        return ODT
    advice = {"spreadsheet": "Save it as XLSX or CSV.", "presentation": "Save it as PPTX or PDF."}
    raise unsupported(f"an OpenDocument {kind}", advice.get(kind, "Export it as PDF."))


def _inside_ole(path: Path) -> str:
    """The old Office container. Names in its directory are UTF-16; they are searched, not parsed."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:

        def holds(name: str) -> bool:
            return data.find(name.encode("utf-16-le")) >= 0

        if holds("EncryptedPackage"):
            raise DocumentFailure("encrypted", "The file is protected by a password. Save it without one.")
        if holds("__properties_version1.0"):
            return MSG
        if holds("PowerPoint Document"):
            raise unsupported("a legacy PowerPoint file (PPT)", "Save it as PPTX or PDF.")
        if holds("WordDocument"):
            raise unsupported("a legacy Word file (DOC)", "Save it as DOCX or PDF.")
        if holds("Workbook") or holds("Book"):
            raise unsupported("a legacy Excel file (XLS)", "Save it as XLSX or CSV.")
    raise unsupported("a legacy Office container")


def _refuse_binary(head: bytes, extension: str) -> None:
    for magic, what in _BINARY:
        if head.startswith(magic) and not (len(magic) < 4 and _reads_as_text(head)):
            raise unsupported(
                what, _IMAGE if "image" in what or "scan" in what else _ARCHIVE if "archive" in what else ""
            )
    if head[:4] == b"RIFF" or head[4:8] == b"ftyp":
        raise unsupported("an image, audio or video file", _IMAGE)
    if len(head) > 300 and head[257:262] == b"ustar":
        raise unsupported("a tar archive", _ARCHIVE)
    if not is_text(head):
        claimed = f" (its name says .{extension})" if extension else ""
        raise unsupported(f"binary data of an unknown kind{claimed}")


def _reads_as_text(head: bytes) -> bool:
    return b"\0" not in head and is_text(head)


def _kind_of_text(path: Path, text: str, extension: str, *, whole: bool) -> str:
    hint = _BY_EXTENSION.get(extension)
    text = text.lstrip("\ufeff")
    if hint != EML and _MBOX.match(text):
        raise unsupported("a mailbox (mbox)", "Split it into one EML file per message.")
    if _is_mail(text, hint):
        return EML
    if markup := _markup(text, hint):
        return markup
    if (data := _json_kind(path, text, hint, whole=whole)) is not None:
        return data
    if hint in (XML, HTML, JSON, JSON_LINES, EML):
        return HTML if hint == HTML and _ANY_TAG.search(text) else _guess(text) if hint != JSON else JSON
    return hint or _guess(text)


def _is_mail(text: str, hint: str | None) -> bool:
    names = []
    text = _MBOX_LINE.sub("", text.lstrip(), count=1) if hint == EML else text
    for line in text.lstrip().split("\n", 60)[:60]:
        if line[:1] in (" ", "\t"):
            continue
        if not _HEADER.match(line):
            break
        names.append(line.split(":", 1)[0].lower())
    known = sum(name in _MAIL_HEADERS for name in names)
    return known >= (1 if hint == EML else 4) or (known >= 2 and bool({"received", "message-id"} & set(names)))


def _markup(text: str, hint: str | None) -> str | None:
    at = _after_prolog(text)
    doctype = text[at : at + 20].lower().startswith("<!doctype")
    if _HTML_ROOT.match(text, at):
        return HTML
    root = _XML_ROOT.match(text, _after_doctype(text, at) if doctype else at)
    name = root.group(1).rsplit(":", 1)[-1].lower() if root else ""
    start = text.lstrip()[:5].lower()
    if start == "<?xml" or (hint == XML and start.startswith("<")):
        if name == "svg":
            raise unsupported("an SVG image", _IMAGE)
        return HTML if name in ("html", "head", "body") else XML
    if hint in (None, HTML, PLAIN) and _HTML_TAG.match(text, at) and len(_ANY_TAG.findall(text[:_HEAD])) >= 2:
        return HTML
    return XML if hint is None and doctype else None


def _after_prolog(text: str) -> int:
    """Where white space, comments and processing instructions at the start end. A loop: a pattern would backtrack."""
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip()) if text[at : at + 1].isspace() else 0
        for opening, closing in (("<!--", "-->"), ("<?", "?>")):
            if text.startswith(opening, at):
                end = text.find(closing, at + len(opening))
                if end < 0:
                    return at
                at = end + len(closing)
                break
        else:
            return at


def _after_doctype(text: str, at: int) -> int:
    """Where the root element may begin: behind the declaration and its internal subset."""
    subset, end = text.find("[", at), text.find(">", at)
    if 0 <= subset < end:
        end = text.find("]>", subset) + 1
    return end + 1 + _after_prolog(text[end + 1 :]) if end > 0 else at


def _json_kind(path: Path, text: str, hint: str | None, *, whole: bool) -> str | None:
    """JSON where it parses as such; in a large file, where its name says so and it begins so."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    if hint not in (JSON, JSON_LINES, None, PLAIN):
        return None
    if hint != JSON and _lines_are_json(text, whole=whole):
        return JSON_LINES
    if hint in (JSON, JSON_LINES):
        return JSON_LINES if _lines_are_json(text, whole=whole) else hint
    if path.stat().st_size > _SMALL:
        return None
    try:
        json.loads(text if whole else decode(path.read_bytes()))
    except (ValueError, RecursionError):
        return None
    return JSON


def _lines_are_json(text: str, *, whole: bool) -> bool:
    lines = [line for line in text.split("\n") if line.strip()]
    lines = lines if whole else lines[:-1]
    if len(lines) < 2:
        return False
    try:
        return all(isinstance(json.loads(line), dict | list) for line in lines[:20])
    except (ValueError, RecursionError):
        return False


def _guess(text: str) -> str:
    """Of a text without a telling name."""
    if _RST_SIGNS.search(text) and ".. " in text:
        return RST
    if len(_MARKDOWN_SIGNS.findall(text)) >= 2:
        return MARKDOWN
    lines = [line for line in text.split("\n")[:50] if line.strip()][:-1]
    for separator, media_type in (("\t", TSV), (",", CSV), (";", CSV)):
        counts = {line.count(separator) for line in lines}
        if len(lines) >= 3 and len(counts) == 1 and counts != {0} and not any(". " in line for line in lines):
            return media_type
    return PLAIN
