"""From bytes of text to characters."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 65_536
_BEGINNING = 1 << 20
_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def read_text(path: Path, declared: str | None = None) -> str:
    """The file's characters. What cannot be decoded becomes U+FFFD; see `decode`."""
    return decode(path.read_bytes(), declared)


def decode(data: bytes, declared: str | None = None) -> str:
    """By byte order mark, then UTF-8, then the encoding that the file declares, then the likeliest legacy one.

    UTF-8 goes before the declaration because text that is not UTF-8 hardly ever decodes as it, while wrong
    declarations are common.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if wide := _wide_encoding(data[:_SAMPLE]):
        return data.decode(wide, "replace")
    for candidate in ("utf-8", declared):
        if candidate and (text := _try(data, candidate)) is not None:
            return text
    if _nearly_utf8(data):
        return data.decode("utf-8", "replace")
    return data.decode(_likely_legacy(data[:_SAMPLE]), "replace")


def read_pieces(path: Path, size: int) -> Iterator[str]:
    """The file's characters as `read_text` gives them, so many at a time, with newline as the only line break of those
    that Windows and old Macs know. For files too large to hold: the encoding is judged by their beginning, and by
    whether the whole is UTF-8."""
    with path.open(encoding=_encoding_of(path), errors="replace", newline=None) as file:
        while piece := file.read(size):
            yield piece


def _encoding_of(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_BEGINNING)
        for mark, encoding in _BOMS:
            if head.startswith(mark):
                return "utf-8-sig" if encoding == "utf-8" else encoding[:6]  # those that read the mark themselves
        if wide := _wide_encoding(head[:_SAMPLE]):
            return wide
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            piece = head
            while piece:
                decoder.decode(piece)
                piece = file.read(_BEGINNING)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "utf-8" if _nearly_utf8(head) else _likely_legacy(head[:_SAMPLE])
    return "utf-8"


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are those of text in any encoding that `decode` knows."""
    if any(head.startswith(mark) for mark, _ in _BOMS) or _wide_encoding(head):
        return True
    controls = len(_CONTROL_BYTES.findall(head))
    if b"\0" in head and head.count(b"\0") > 2 + len(head) // 1000:
        return False
    if _valid_utf8(head):
        return controls <= 2 + len(head) // 100
    return controls <= len(head) // 300


def _valid_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character cut by the end of the sample is no error
    except UnicodeDecodeError:
        return False
    return True


def _nearly_utf8(data: bytes) -> bool:
    """Mostly UTF-8 with a few damaged bytes: more multi-byte characters came out whole than broken."""
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    whole = sum(1 for character in text[:_SAMPLE] if character > "\x7f" and character != "\ufffd")
    return whole > 10 * broken


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError, ValueError):
        return None


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 without a mark: in western text every other byte is zero."""
    if len(head) < 4 or b"\0" not in head:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd > 0.6 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.6 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _likely_legacy(sample: bytes) -> str:
    """The legacy encoding that fits best; cp1252 where nothing fits clearly better."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None or (len(sample) < 64 and not best.alphabets):
        return "cp1252"
    western = {
        "latin_1",
        "cp1250",
        "cp1252",
        "cp1254",
        "cp1257",
        "iso8859_15",
        "iso8859_9",
        "cp850",
        "cp437",
        "mac_roman",
    }
    return "cp1252" if best.encoding in western or best.encoding == "ascii" else best.encoding
