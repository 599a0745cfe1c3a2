"""Rich text written in code pages, rewritten in Unicode.

A byte of rich text means what the charset of its font says, else the document's code page. Pandoc takes every byte for
cp1252, so a Russian or Japanese text that older programs wrote comes out as other letters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

_LATIN = "cp1252"
_CHARSETS: Mapping[int, str | None] = {
    0: _LATIN,
    2: None,  # symbols: no text in any code page
    77: "mac_roman",
    128: "cp932",
    129: "cp949",
    134: "gbk",
    136: "big5",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
}
"""The numbers of `\\fcharset`, from the specification (Rich Text Format 1.9.1)."""
_FONT = re.compile(rb"\\f(\d{1,6})(?:\s|\\[a-z]+-?\d*){0,20}?\\fcharset(\d{1,3})")
_CODE_PAGE = re.compile(rb"\\ansicpg(\d{1,5})")
_DEFAULT_FONT = re.compile(rb"\\deff(\d{1,6})")
_TOKEN = re.compile(
    rb"(?P<bytes>(?:\\'[0-9a-fA-F]{2}|[\x80-\xff])+)|\\u(?P<unicode>-?\d{1,6}) ?|\\uc(?P<skip>\d{1,3})"
    rb"|\\f(?P<font>\d{1,6})|(?P<plain>\\plain)|\\bin(?P<raw>\d{1,9}) ?|\\[\\{}]|(?P<open>\{)|(?P<close>\})"
)
_BYTE = re.compile(rb"\\'([0-9a-fA-F]{2})|([\x80-\xff])")
_STAND_IN = re.compile(rb"\\'[0-9a-fA-F]{2}|[^\\{}]")


def in_unicode(data: bytes) -> bytes:
    """The same rich text with the bytes of its code pages as `\\u`. What is all cp1252 stays as it is."""
    page = _CODE_PAGE.search(data[:4096])
    document = _known(f"cp{int(page[1])}") if page else _LATIN
    fonts = {int(font): _CHARSETS.get(int(charset), document) for font, charset in _FONT.findall(data)}
    if {document, *fonts.values()} <= {_LATIN, None}:
        return data
    first = _DEFAULT_FONT.search(data[:4096])
    usual = fonts.get(int(first[1]), document) if first else document
    return b"".join(_rewritten(data, fonts, document, usual))


def _known(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return _LATIN


def _rewritten(data: bytes, fonts: Mapping[int, str | None], document: str, usual: str | None) -> list[bytes]:
    made: list[bytes] = []
    codec: str | None = document
    skip = 1  # characters after a `\u` that stand in for it
    outer: list[tuple[str | None, int]] = []
    at = 0
    while token := _TOKEN.search(data, at):
        made.append(data[at : token.start()])
        at = token.end()
        if token["bytes"] is not None and codec is not None and codec != _LATIN:
            text, at = _decoded(token["bytes"], data, at, codec)
            made.append(_escaped(text, skip))
            continue
        if token["open"]:
            outer.append((codec, skip))
        elif token["close"] and outer:
            codec, skip = outer.pop()
        elif token["font"]:
            codec = fonts.get(int(token["font"]), document)
        elif token["plain"]:
            codec = usual
        elif token["skip"]:
            skip = int(token["skip"])
        elif token["raw"]:
            at += int(token["raw"])
        elif token["unicode"]:
            left = skip
            while left and (stand_in := _STAND_IN.match(data, at)):
                at, left = stand_in.end(), left - 1
        made.append(data[token.start() : at])
    return [*made, data[at:]]


def _decoded(escaped: bytes, data: bytes, at: int, codec: str) -> tuple[str, int]:
    """The characters of some bytes, and where the text goes on: the last one's second byte may follow as a letter."""
    raw = b"".join(bytes.fromhex(code.decode()) or byte for code, byte in _BYTE.findall(escaped))
    decoder = codecs.getincrementaldecoder(codec)("replace")
    text = decoder.decode(raw)
    if decoder.getstate()[0] and data[at : at + 1].isalnum():
        return text + decoder.decode(data[at : at + 1], final=True), at + 1
    return text + decoder.decode(b"", final=True), at


def _escaped(text: str, skip: int) -> bytes:
    """Without stand-ins, and the number of them as it was afterwards: not every reader ends `\\uc` with its group."""
    units = text.encode("utf-16-le")
    numbers = (int.from_bytes(units[i : i + 2], "little", signed=True) for i in range(0, len(units), 2))
    return b"\\uc0%s\\uc%d " % (b"".join(b"\\u%d " % number for number in numbers), skip)
