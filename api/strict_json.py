"""JSON as the standard has it: no NaN, no half characters, no nesting without end."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from indexes.errors import ChangeRequest

LARGE = 64 << 10
"""Bytes from which parsing takes long enough to be done in a thread."""
WHOLE = 2**53
"""Up to here a double holds every integer."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(body: bytes) -> Any:
    """The value of a JSON text. Raises ChangeRequest (`invalid_json`) that says what is wrong with it."""
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _invalid("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _invalid("it is nested too deep") from error
    except ValueError as error:
        raise _invalid("a number has too many digits") from error
    if _SURROGATE.search(body):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _invalid("an escape stands for half a character") from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    """In JSON 2.0 is the same number as 2: what is whole is an integer."""
    number = float(text)
    if not math.isfinite(number):
        raise _invalid("a number is too large")
    return int(number) if number.is_integer() and abs(number) <= WHOLE else number


def _invalid(what: str) -> ChangeRequest:
    return ChangeRequest(f"The body is not valid JSON: {what}.", code="invalid_json")
