"""Rich text in code pages: what the bytes mean is worked out here with Python's own codecs."""

import pytest

from ingest.loaders.rtf import in_unicode


def escaped(text, codec):
    return "".join(f"\\'{byte:02x}" for byte in text.encode(codec)).encode()


@pytest.mark.parametrize(
    ("number", "codec", "text"),
    [(204, "cp1251", "Уважаемый"), (128, "cp932", "日本語ソ"), (238, "cp1250", "żółw"), (136, "big5", "中文")],
)
def test_bytes_mean_what_the_charset_of_their_font_says(number, codec, text):
    fonts = "{\\fonttbl{\\f0\\fswiss\\fcharset0 Arial;}{\\f7\\froman\\fprq2\\fcharset" + f"{number} Other;}}}}"
    form = "{\\rtf1\\ansi\\ansicpg1252\\deff0" + fonts + " caf%s {\\f7\\fs20 %s} %s \\f7 %s\\plain%s%s}"
    code = escaped(text, codec).decode()
    source = form % ("\\'e9", code, "\\'e9", code, "", "\\'e9")
    assert in_unicode(source.encode()).decode() == form % ("é", text, "é", text, " ", "é")


def test_without_a_font_the_code_page_of_the_document_counts():
    assert in_unicode(b"{\\rtf1\\ansicpg1251 \\'d3\xe2!}") == "{\\rtf1\\ansicpg1251 Ув!}".encode()
    # A second byte that is a letter may stand there as that letter.
    assert in_unicode(b"{\\rtf1\\ansicpg932 \\'83nx}") == "{\\rtf1\\ansicpg932 ハx}".encode()


@pytest.mark.parametrize(
    ("source", "letters"),
    [
        ("Stra\\u223?e \\u223 ?e", "Straße ße"),
        ("\\u-10179?\\u-8638? \\uc0\\u55357 \\u56898 ", "🙂 \\uc0 🙂"),
        ("\\u-10179?x", "\ufffdx"),
        ("\\u1059\\'d3x\\u1059?", "УxУ"),
        ("{\\uc2\\u12495\\'83\\'6e}\\u12495 ?", "{\\uc2 ハ}ハ"),
        ("\\b\\u97?\\i\\u223?, \\\\b\\u97?", "\\b a\\i ß, \\\\ba"),
        ("\\u92?\\u123?\\u10?", "\\\\\\{ "),
        ("{\\pict\\bin4 \xd3\xe2{{}\\u223?", "{\\pict}ß"),
        ("Gr\\'fc\xdfe\\u223?", "Grüßeß"),
    ],
)
def test_letters_stand_for_themselves_without_what_stands_in_for_them(source, letters):
    expected = ("{\\rtf1\\ansi " + letters + "}").encode()
    assert in_unicode(b"{\\rtf1\\ansi " + source.encode("latin-1") + b"}") == expected


def test_symbols_stay_as_they_are_beside_letters():
    fonts = "{\\fonttbl{\\f3\\fcharset2 Symbol;}}"
    source = "{\\rtf1\\ansi" + fonts + "{\\f3 \\'b7\xb7}\\u223?}"
    assert in_unicode(source.encode("latin-1")) == ("{\\rtf1\\ansi" + fonts + "{\\f3 \\'b7\\'b7}ß}").encode()


def test_what_is_all_latin_stays_as_it_is():
    for source in (b"{\\rtf1\\ansi\\ansicpg1252 Gr\\'fc\\'dfe \xfc}", b"{\\rtf1\\ansicpg1252 \\{a\\\\\\}}"):
        assert in_unicode(source) == source


def test_a_hostile_text_takes_no_time():
    for piece in (b"\\\\", b"\\f1", b"\\f1\\x", b"{", b"}", b"\\uc999\\u1 ", b"\\'83", b"\\bin9 "):
        in_unicode(b"{\\rtf1\\ansicpg932 " + piece * 100_000)
