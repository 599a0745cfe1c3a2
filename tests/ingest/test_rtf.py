"""Rich text in code pages: what the bytes mean is worked out here with Python's own codecs."""

import pytest

from ingest.loaders.rtf import in_unicode


def escaped(text, codec):
    return "".join(f"\\'{byte:02x}" for byte in text.encode(codec)).encode()


def unicode(text, stand_ins=1):
    characters = "".join(f"\\u{ord(c) - 65536 * (ord(c) > 32767)} " for c in text)
    return f"\\uc0{characters}\\uc{stand_ins} ".encode()


@pytest.mark.parametrize(
    ("number", "codec", "text"),
    [(204, "cp1251", "Уважаемый"), (128, "cp932", "日本語ソ"), (238, "cp1250", "żółw"), (136, "big5", "中文")],
)
def test_bytes_mean_what_the_charset_of_their_font_says(number, codec, text):
    fonts = b"{\\fonttbl{\\f0\\fswiss\\fcharset0 Arial;}{\\f7\\froman\\fprq2\\fcharset%d Other;}}" % number
    begin = b"{\\rtf1\\ansi\\ansicpg1252\\deff0" + fonts + b" caf\\'e9 "
    code = escaped(text, codec)
    source = begin + b"{\\f7\\fs20 " + code + b"} \\'e9 \\f7 " + code + b"\\plain \\'e9}"
    expected = begin + b"{\\f7\\fs20 " + unicode(text) + b"} \\'e9 \\f7 " + unicode(text) + b"\\plain \\'e9}"
    assert in_unicode(source) == expected


def test_without_a_font_the_code_page_of_the_document_counts():
    assert (
        in_unicode(b"{\\rtf1\\ansi\\ansicpg1251 \\'d3\xe2!}") == b"{\\rtf1\\ansi\\ansicpg1251 " + unicode("Ув") + b"!}"
    )
    # A second byte that is a letter may stand there as that letter.
    assert in_unicode(b"{\\rtf1\\ansicpg932 \\'83nx}") == b"{\\rtf1\\ansicpg932 " + unicode("ハ") + b"x}"


def test_what_stands_in_for_a_character_that_is_in_unicode_already_stays():
    for source in (
        b"{\\rtf1\\ansicpg1251 \\u1059\\'d3x\\u1059?}",
        b"{\\rtf1\\ansicpg932 {\\uc2\\u12495\\'83\\'6e}\\u12495 ?}",
        b"{\\rtf1\\ansicpg1251 \\{a\\\\\\}}",
        b"{\\rtf1\\ansicpg1251 {\\pict\\bin4 \xd3\xe2{{}}",
        b"{\\rtf1\\ansi\\ansicpg1252 Gr\\'fc\\'dfe \xfc}",
    ):
        assert in_unicode(source) == source
    assert in_unicode(b"{\\rtf1\\ansicpg1251\\uc2 \\'d3}") == b"{\\rtf1\\ansicpg1251\\uc2 " + unicode("У", 2) + b"}"


def test_a_hostile_text_takes_no_time():
    for piece in (b"\\f1", b"\\f1\\x", b"{", b"}", b"\\uc999\\u1 ", b"\\'83", b"\\bin9 "):
        in_unicode(b"{\\rtf1\\ansicpg932 " + piece * 100_000)
