"""Resolves YAML scalars to values, and keys to strings, exactly as kubectl does.

kubectl reads YAML with sigs.k8s.io/yaml, which resolves scalars with goyaml.v2 (resolve.go: YAML 1.1 booleans, `0o`,
`0x`, `0b` and leading zeros, no sexagesimals, timestamps are strings) and converts the result to JSON (yaml.go).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from decimal import Decimal

MAX_DIGITS = 400
"""Length above which a number is a string, as the largest float64 has 309 digits."""
INT64 = 2**63

_BOOLEANS = {
    text: value
    for value, words in ((True, ("y", "yes", "true", "on")), (False, ("n", "no", "false", "off")))
    for word in words
    for text in (word, word.capitalize(), word.upper())
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_FLOATS = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_WORDS: dict[str, object] = {**_BOOLEANS, **dict.fromkeys(_NULLS), **_FLOATS}
_INTEGER = re.compile(r"([-+]?)(?:0[bB]([01]+)|0[oO]?([0-7]+)|0[xX]([0-9a-fA-F]+)|([1-9][0-9]*|0))\Z")
_BASES = (2, 8, 16, 10)
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_DOTTED = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?\Z")
"""What starts with a dot goes to Go's ParseFloat as it stands, which takes an underscore between digits only."""
_TAG = "tag:yaml.org,2002:"
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"([Tt][0-9]{1,2}(:[0-9]{1,2}){2}(\.[0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})| [0-9]{1,2}(:[0-9]{1,2}){2}(\.[0-9]+)?)?\Z"
)
_TYPES = {"null": type(None), "bool": bool, "int": int, "float": float}
_FLOAT32_DIGITS = 9
"""Significant digits that identify any float32."""


class ScalarError(ValueError):
    """A scalar that Kubernetes refuses."""


def resolve(text: str) -> object:
    """The value of a plain scalar: None, bool, int, float, or `text` itself."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first not in "0123456789+-." or len(text) > MAX_DIGITS:
        return text
    number = text.replace("_", "")
    if first == ".":
        return _fraction(number, text) if _DOTTED.match(text) else text
    integer = _INTEGER.match(number)
    if integer is not None:
        digits = next(index for index in (2, 3, 4, 5) if integer.group(index) is not None)
        value = int(integer.group(digits), _BASES[digits - 2])
        value = -value if integer.group(1) == "-" else value
        if -INT64 <= value < 2 * INT64:
            return value
    return _fraction(number, text) if _FRACTION.match(number) else text


def _fraction(number: str, text: str) -> object:
    """The float64 nearest to `number`; `text`, as a string, beyond the largest."""
    value = float(number)
    return text if math.isinf(value) else value


def tagged(tag: str, text: str) -> object:
    """The value of a scalar with an explicit tag. Raises ScalarError when the text is not of that type."""
    kind = tag.removeprefix(_TAG)
    if kind == "binary":
        return _from_base64(text)
    if kind == "timestamp" and not _TIMESTAMP.match(text):
        raise ScalarError("is no !!timestamp")
    if kind not in _TYPES:
        return text  # !!str, !!timestamp, "!" and every unknown tag
    value = resolve(text)
    if kind == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES[kind]:
        raise ScalarError(f"is no !!{kind}")
    return value


def as_json(value: object) -> object:
    """A resolved value as the JSON that Kubernetes gets: a float without a fraction is an integer there.

    Raises ScalarError for what JSON does not have.
    """
    if type(value) is not float:
        return value
    if math.isnan(value) or math.isinf(value):
        raise ScalarError("is no number that JSON has: quote it")
    # Go writes the shortest digits that are this float64, and reads what has neither point nor exponent as an int64.
    integer = int(Decimal(repr(value))) if value.is_integer() and abs(value) < 2 * INT64 else 2 * INT64
    return integer if -INT64 <= integer < INT64 else value


def as_key(value: object) -> str:
    """A resolved value as a key of a mapping: numbers and booleans become strings. Raises ScalarError for others."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value < INT64:
        return str(value)
    if isinstance(value, float):
        return _float32(value)
    raise ScalarError("null is no key" if value is None else "is a number too large for a key: quote it")


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split("\n")).replace("\r", ""), validate=True).decode(errors="replace")
    except (binascii.Error, ValueError) as error:
        raise ScalarError("is no base64") from error


def _float32(value: float) -> str:
    """As Go's FormatFloat(value, 'g', -1, 32), with the names of infinity and NaN in YAML."""
    if math.isnan(value):
        return ".nan"
    single = struct.pack("f", value)
    (value,) = struct.unpack("f", single)
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = next(
        shown for digits in range(_FLOAT32_DIGITS) if struct.pack("f", float(shown := f"{value:.{digits}e}")) == single
    )
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    if -4 <= power < 6 or value == 0:
        digits = len(mantissa.replace("-", "").replace(".", ""))
        return f"{float(text):.{max(0, digits - 1 - power)}f}"
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02}"
