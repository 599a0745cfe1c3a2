"""What a sentence states that can be looked up word for word: numbers, units, names, codes. And what a text has of it.

A sentence makes demands, a text yields keys; a demand is met where the text has what it asks for. Numbers are compared
by value (`1,000` is `1000`, `two` is `2`, `10th` is `10`, `3 million` is `3000000`), units by meaning (`5 km`, `five
kilometres`), months by their place in the year (`5 March 2021`, `2021-03-05`), codes without case and hyphens. A name
is what has a capital letter inside of a sentence. Every pattern reads its text once.

    >>> keys = evidence("In March 2021 the XJ-900 sold 1,200 units at five kilometres an hour.")
    >>> [demand.text for demand in demands("The XJ900 sold 1200 units in 2021-03.") if not is_met(demand, keys)]
    []
    >>> [demand.text for demand in demands("In May 2021 Rollo sold 1300.") if not is_met(demand, keys)]
    ['1300', 'May', 'Rollo']
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from indexes.words import analyse
from rag.evaluation.background import is_common

Kind = Literal["number", "unit", "name", "code"]

LONGEST_NUMBER = 24
"""Characters of what is a number; what is longer is looked for as a code."""
MOST_SCALES = 3
"""Words such as "thousand" that multiply one number."""


@dataclass(frozen=True)
class Demand:
    """Something that a sentence states: met by any of `keys`, or by all of `parts` together where there are some."""

    kind: Kind
    text: str
    """As the sentence has it, after NFKC."""
    keys: frozenset[str]
    parts: frozenset[str] = frozenset()


def evidence(text: str) -> frozenset[str]:
    """The keys that a text yields: its words (`w:`), codes (`c:`), numbers (`n:`), quantities (`q:`), units (`u:`) and
    months (`m:`)."""
    text = normal(text)
    keys = {f"w:{word}" for word in analyse(text)}
    if "'" in text:  # by themselves too, as demanded: words are analysed together with what apostrophes join to them
        keys.update(f"w:{term}" for word in _WORD.findall(text) if "'" in word for term in analyse(word))
    tokens = [_bare(token) for token in _TOKEN.findall(text)]
    keys.update(f"c:{token}" for token in tokens)
    keys.update(f"c:{one}{two}" for one, two in itertools.pairwise(tokens) if len(one) + len(two) < 64)
    for numbers, months in _dates(text):
        keys.update(f"n:{number}" for number in numbers)
        keys.update(f"m:{month}" for month in months)
    text, parts = _without_dates(text)
    for number in _numbers(text, parts):
        keys.update(number.keys)
        keys.update(f"q:{value} {number.unit}" for value in number.values)
    for part in parts:
        written = part.group()
        name = written.casefold()
        if name in _UNITS:
            keys.add(f"u:{_UNITS[name]}")
        if name in _MONTHS and written[0].isupper():
            keys.add(f"m:{_MONTHS[name]}")
    return frozenset(keys)


def demands(text: str, *, names: bool = True) -> list[Demand]:
    """What a sentence states; without `names` capitals say nothing."""
    text = normal(text)
    found = [demand for span in _SPAN.findall(text) for demand in code_demands(span)]
    text = _SPAN.sub(" ", text)
    in_code: set[int] = set()
    for token in _TOKEN.finditer(text):
        if _is_code(token.group()):
            found.append(_code(token.group()))
            in_code.update(range(*token.span()))
    for numbers, months in _dates(text):
        found += [Demand("number", one, frozenset([f"n:{one}"] + [f"m:{one}"] * (one in months))) for one in numbers]
    for number in _numbers(*_without_dates(text)):
        if number.start not in in_code and number.text.casefold() not in _NOT_DEMANDED:
            found.append(Demand("number", number.text, number.keys))
            found += _quantity(number)
    return found + ([_name(word) for word in _named(text) if in_code.isdisjoint(range(*word.span()))] if names else [])


def code_demands(text: str) -> list[Demand]:
    """What a piece of code states: each of its words."""
    return [_code(token) for token in _TOKEN.findall(normal(text)) if any(map(str.isalnum, token))]


def is_met(demand: Demand, keys: frozenset[str]) -> bool:
    """Whether a text with these keys states what is demanded."""
    return not demand.keys.isdisjoint(keys) or (bool(demand.parts) and demand.parts <= keys)


def normal(text: str) -> str:
    """NFKC, with plain quotes, hyphens and spaces, and without the stars of Markdown's emphasis."""
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFKC", text)).translate(_PLAIN)
    return text.replace("*", "")


_ACCENTS = re.compile("[\u0300-\u036f]")  # those that no letter has taken in
_PLAIN = str.maketrans("‐‑‒–—−’‘ʼ“”„«»⁄\u00a0\u2009\u202f", '------\'\'\'"""""/   ')

# ---- numbers ---------------------------------------------------------------------------------------------------------

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_NAMES = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_TENS = {name: 20 + 10 * at for at, name in enumerate(_TENS_NAMES.split())}
_ORDINALS = {name: 1 + at for at, name in enumerate(_ORDINAL_NAMES.split())}
_WRITTEN = {name: at for at, name in enumerate(_ONES.split())} | _TENS | _ORDINALS
NUMBER_WORDS = frozenset(_WRITTEN)
_NOT_DEMANDED = frozenset(["zero", "one", *_ORDINALS])
"""More often said without counting anything."""
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "mio": 10**6, "billion": 10**9, "bn": 10**9}
_SCALES["trillion"] = 10**12
_SPELLINGS = """
% percent pct; $ dollar usd; € euro eur; £ pound gbp; ¥ yen; mm millimetre millimeter; cm centimetre centimeter;
m metre meter; km kilometre kilometer; inch inches; ft foot feet; mi mile; yd yard; mg milligram; g gram;
kg kilogram kilo; tonne ton; lb lbs; oz ounce; ml millilitre milliliter; l litre liter; gallon; ms millisecond;
second sec; minute min; hour hr h; day; week; month; year yr; century centuries; kb kilobyte kib; mb megabyte mib;
gb gigabyte gib; tb terabyte tib; hz hertz; khz; mhz; ghz; w watt; kw kilowatt; v volt; mah; °c celsius; °f fahrenheit;
kmh kph; mph
"""
_UNITS = {name: names.split()[0] for names in _SPELLINGS.split(";") for name in names.split()}
_UNITS |= {f"{name}s": unit for name, unit in _UNITS.items() if len(name) > 2}
"""Each spelling with the first of its kind. `in`, `a` and `t` are words more often than units."""

_PART = re.compile(r"\d{1,3}(?:[ ']\d{3})++(?!\d)|\d++(?:[.,]\d++)*+|°[CF]\b|[^\W\d_]++|[%$€£¥]")
_LETTERS = re.compile(r"[^\W\d_]+")
_DATE = re.compile(r"(?<![\d./-])(?:(\d{4})-(\d{1,2})(?:-(\d{1,2}))?|(\d{1,2})[./](\d{1,2})[./](\d{4}))(?![\d/-])")
_ENDINGS = frozenset(["st", "nd", "rd", "th", "s", "am", "pm"])
_SUFFIXES = _ENDINGS | _UNITS.keys() | _SCALES.keys()
"""What may follow figures without making a code of them."""
_MONEY = frozenset("$€£¥")
_BETWEEN = frozenset(["", " ", "-"])


@dataclass(frozen=True)
class _Number:
    start: int
    text: str
    values: tuple[str, ...]
    """More than one where it can be read in several ways: `1.500`."""
    unit: str
    """Empty where there is none."""

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(f"n:{value}" for value in self.values)


def _quantity(number: _Number) -> list[Demand]:
    """A number with its unit stands in a text as such, or the number without any and the unit elsewhere, as in a
    table."""
    if not number.unit:
        return []
    keys = frozenset(f"q:{value} {number.unit}" for value in number.values)
    apart = frozenset([f"q:{number.values[0]} ", f"u:{number.unit}"])
    return [Demand("unit", f"{number.text} {number.unit}", keys, apart)]


def _without_dates(text: str) -> tuple[str, list[re.Match[str]]]:
    """A text with blanks for its dates, and the words, figures and signs of it."""
    text = _DATE.sub(lambda date: " " * len(date.group()), text)
    return text, list(_PART.finditer(text))


def _numbers(text: str, parts: Sequence[re.Match[str]]) -> Iterator[_Number]:
    behind = 0
    for first, part in enumerate(parts):
        written = part.group()
        if first < behind or not (written[0].isdecimal() or written.casefold() in _WRITTEN):
            continue
        values, at = _value(text, parts, first)
        if values:
            whole = text[part.start() : parts[at - 1].end()]
            unit, behind = _unit(text, parts, first, at)
            yield _Number(part.start(), whole, values, unit)


def _value(text: str, parts: Sequence[re.Match[str]], at: int) -> tuple[tuple[str, ...], int]:
    """The readings of the number that begins here, none where it is none, and the part behind it."""
    part = parts[at]
    written = part.group().casefold()
    if written in _WRITTEN:
        number = _WRITTEN[written]
        at += 1
        ones = _next(text, parts, at)
        if written in _TENS and _WRITTEN.get(ones, 10) < 10:
            number += _WRITTEN[ones]
            at += 1
        values: tuple[str, ...] = (str(number),)
    else:
        values = () if _within_word(text, part) else _readings(written)
        at += 1
    for _ in range(MOST_SCALES):
        scale = _SCALES.get(_next(text, parts, at))
        if scale is None or not values:
            break
        values = tuple(_plain(format(Decimal(value) * scale, "f")) for value in values)
        at += 1
    return values, at


def _unit(text: str, parts: Sequence[re.Match[str]], first: int, at: int) -> tuple[str, int]:
    """The unit of the number between two parts, behind it or, of money, in front; and the part behind that."""
    before = parts[first - 1] if first else None
    if before is not None and before.group() in _MONEY and text[before.end() : parts[first].start()] in ("", " "):
        return before.group(), at
    after = _next(text, parts, at)
    if after in _ENDINGS and parts[at].start() == parts[at - 1].end():
        return "", at + 1
    return (_UNITS[after], at + 1) if after in _UNITS else ("", at)


def _next(text: str, parts: Sequence[re.Match[str]], at: int) -> str:
    """The part at this place, where nothing but a space or a hyphen lies between it and the one before."""
    if at >= len(parts) or text[parts[at - 1].end() : parts[at].start()] not in _BETWEEN:
        return ""
    return parts[at].group().casefold()


def _within_word(text: str, part: re.Match[str]) -> bool:
    before = text[part.start() - 1] if part.start() else " "
    if _is_cased(before) or before == "_":
        return True
    glued = _LETTERS.match(text, part.end(), part.end() + 24)
    return glued is not None and _is_cased(glued.group()[0]) and glued.group().casefold() not in _SUFFIXES


def _readings(written: str) -> tuple[str, ...]:
    """The values that a written number may have, as decimals without needless zeros; none for `3.11.2`.

    >>> _readings("1,000"), _readings("1.000"), _readings("1.234,50"), _readings("007")
    (('1000',), ('1', '1000'), ('1234.5',), ('7',))
    """
    digits = "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in written if one not in " '")
    if len(digits) > LONGEST_NUMBER:
        return ()
    mark = max(".,", key=digits.rfind)
    other = "," if mark == "." else "."
    head, _, tail = digits.rpartition(mark)
    if not head:
        return (_plain(digits),)
    grouped = len(tail) == 3 and all(len(group) == 3 for group in head.split(mark)[1:]) and len(head.split(mark)[0]) < 4
    if other in head:
        return (_plain(f"{head.replace(other, '')}.{tail}"),) if mark not in head else ()
    if mark in head:
        return (_plain(digits.replace(mark, "")),) if grouped else ()
    if not grouped:
        return (_plain(f"{head}.{tail}"),)
    whole = _plain(head + tail)
    return (whole,) if mark == "," else tuple(dict.fromkeys([_plain(f"{head}.{tail}"), whole]))


def _plain(digits: str) -> str:
    whole, _, fraction = digits.partition(".")
    return ".".join(part for part in (whole.lstrip("0") or "0", fraction.rstrip("0")) if part)


# ---- dates -----------------------------------------------------------------------------------------------------------

_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = {name: at for at, name in enumerate(_MONTH_NAMES.split(), 1)}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9}
_WORD = re.compile(r"[^\W\d_]++(?:['.-][^\W\d_]++)*+")


def _dates(text: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The numbers of each date in figures, and which of them may be the month: in `5/3/2021` either."""
    for match in _DATE.finditer(text):
        numbers = tuple(
            _plain("".join(str(unicodedata.decimal(one)) for one in part)) for part in match.groups() if part
        )
        yield numbers, numbers[1:2] if match[1] else numbers[:2]


# ---- codes -----------------------------------------------------------------------------------------------------------

_SPAN = re.compile(r"(?<!`)`++([^`\n]++)`")
_TOKEN = re.compile(r"[^\s\"'`()\[\]{}<>,;!?|$€£¥…、。，；：！？「」『』（）【】]++")
_EDGES = ".:*_~=-"
_HUMP = re.compile(r"[a-z][A-Z]")
_VERSION = re.compile(r"v?\d++(?:\.\d++){2,}+")
_FIGURES = re.compile(r"[\d.,:/%]++([^\W\d_]*+)")


def _bare(token: str) -> str:
    return token.casefold().strip(_EDGES).replace("-", "")


def _code(token: str) -> Demand:
    return Demand("code", token.strip(_EDGES), frozenset([f"c:{_bare(token)}"]))


def _is_code(token: str) -> bool:
    bare = token.strip(_EDGES)
    if any(mark in bare for mark in ("_", "://", "@", "\\")) or _VERSION.fullmatch(bare):
        return True
    if len(bare) > LONGEST_NUMBER and bare.isdecimal():
        return True
    if token.startswith(("/", "./", "../", "~/", "--")) and bare.lstrip("./~")[:1].isalpha():
        return True
    head, _, ending = bare.rpartition(".")
    if head[-1:].isalnum() and 2 <= len(ending) <= 5 and ending.isalpha() and ending.isascii() and ending.islower():
        return True
    return (bare[:1].islower() and _HUMP.search(bare) is not None) or _mixes(bare)


def _is_cased(letter: str) -> bool:
    return letter.isupper() or letter.islower()


def _mixes(bare: str) -> bool:
    """Letters and digits in one: `A380`, `COVID-19`; not `19th-century`, `5km` or `mid-1990s`."""
    if not any(map(str.isdigit, bare)) or not any(map(_is_cased, bare)):
        return False
    for piece in re.split("[-/]", bare):
        figures = _FIGURES.fullmatch(piece)
        if figures is not None and (not figures[1] or figures[1].casefold() in _SUFFIXES):
            continue
        if not piece.isalpha() or piece[0].isupper():
            return True
    return False


# ---- names -----------------------------------------------------------------------------------------------------------

_OPENS = frozenset(".!?:;\"'([{*-/|…。！？：；")
_GERMAN = "der die das und ist nicht ein eine den dem des von mit zu auf für im sich auch"
_FLUENT_GERMAN = frozenset(_GERMAN.split())


def capitals_name(text: str) -> bool:
    """Whether capital letters inside of sentences mean names in a text: not in German."""
    words = _WORD.findall(normal(text))
    return 10 * sum(word.casefold() in _FLUENT_GERMAN for word in words) < len(words)


def _named(text: str) -> Iterator[re.Match[str]]:
    """The words that have a capital for being names."""
    for match in _WORD.finditer(text if not text.isupper() else ""):
        word = match.group().removesuffix("'s")
        plain = word.casefold()
        if len(word) == 1 or not word[0].isupper() or word.startswith("I'"):
            continue
        if plain.split("-")[0] in _WRITTEN or plain in _UNITS or not analyse(word):
            continue
        if word.isupper() or not is_common(plain) or not _opens(text, match.start()):
            yield match


def _name(match: re.Match[str]) -> Demand:
    word = match.group()
    whole, *parts = (f"w:{term}" for term in analyse(word))
    month = _MONTHS.get(word.casefold())
    keys = [whole] if month is None else [whole, f"m:{month}"]
    return Demand("name", word, frozenset(keys), frozenset(parts))


def _opens(text: str, at: int) -> bool:
    """Whether what stands here may have its capital from its place: at the start of a sentence or a quotation."""
    before = at - 1
    while before >= 0 and text[before].isspace():
        before -= 1
    return before < 0 or text[before] in _OPENS
