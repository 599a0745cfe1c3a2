"""Rich text with its letters as code pages and `\\u` spell them, rewritten with the letters themselves, in UTF-8.

A byte of rich text means what the charset of its font says, else the document's code page. Pandoc takes every byte for
cp1252, so a Russian or Japanese text that older programs wrote comes out as other letters. Of `\\u` it reads no
character beyond the first 65,536, and it drops a letter that comes after a stand-in (the e of `Stra\\u223?e`). A file
that is UTF-8 it reads as that.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping

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
_UNICODE = re.compile(rb"\\u-?\d")
_MARK = "\0"
"""Before letters that were spelt: a control word that they follow must not go on into them."""
_CONTROL_WORD = re.compile(rf"(?<!\\)((?:\\\\)*\\[a-zA-Z]+-?\d*){_MARK}")
_SPECIAL = re.compile(r"[\\{}]")
_CONTROL = re.compile(r"[\0-\x1f]")


def in_unicode(data: bytes) -> bytes:
    """The same rich text in UTF-8. What is all cp1252 and has no `\\u` stays as it is."""
    page = _CODE_PAGE.search(data[:4096])
    document = _known(f"cp{int(page[1])}") if page else _LATIN
    fonts = {int(font): _CHARSETS.get(int(charset), document) for font, charset in _FONT.findall(data)}
    if {document, *fonts.values()} <= {_LATIN, None} and not _UNICODE.search(data):
        return data
    first = _DEFAULT_FONT.search(data[:4096])
    usual = fonts.get(int(first[1]), document) if first else document
    text = _CONTROL_WORD.sub(r"\1 ", "".join(_rewritten(data, fonts, document, usual))).replace(_MARK, "")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _known(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return _LATIN


def _rewritten(data: bytes, fonts: Mapping[int, str | None], document: str, usual: str | None) -> Iterator[str]:
    """The text in pieces; a character beyond the first 65,536 comes as its two surrogates."""
    codec: str | None = document
    skip = 1  # characters after a `\\u` that stand in for it
    outer: list[tuple[str | None, int]] = []
    at = 0
    while token := _TOKEN.search(data, at):
        yield data[at : token.start()].decode("ascii")
        at = token.end()
        if token["bytes"] is not None and codec is None:
            yield _kept(token["bytes"])
            continue
        if token["bytes"] is not None and codec is not None:
            text, at = _decoded(token["bytes"], data, at, codec)
            yield _spelt(text)
            continue
        if token["unicode"]:
            yield _spelt(chr(int(token["unicode"]) % 0x10000))
            left = skip
            while left and (stand_in := _STAND_IN.match(data, at)):
                at, left = stand_in.end(), left - 1
            continue
        if token["raw"]:
            at += int(token["raw"])  # a picture, which is no UTF-8
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
        yield token.group().decode("ascii")
    yield data[at:].decode("ascii")


def _spelt(text: str) -> str:
    return _MARK + _SPECIAL.sub(r"\\\g<0>", _CONTROL.sub(" ", text))


def _kept(symbols: bytes) -> str:
    """Bytes that are no text, in ASCII."""
    return _BYTE.sub(lambda byte: b"\\'" + (byte[1] or b"%02x" % byte[2][0]), symbols).decode("ascii")


def _decoded(escaped: bytes, data: bytes, at: int, codec: str) -> tuple[str, int]:
    """The characters of some bytes, and where the text goes on: the last one's second byte may follow as a letter."""
    raw = b"".join(bytes.fromhex(code.decode()) or byte for code, byte in _BYTE.findall(escaped))
    decoder = codecs.getincrementaldecoder(codec)("replace")
    text = decoder.decode(raw)
    if decoder.getstate()[0] and data[at : at + 1].isalnum():
        return text + decoder.decode(data[at : at + 1], final=True), at + 1
    return text + decoder.decode(b"", final=True), at
