"""Validates names, labels and ports like the Kubernetes API server, and quotes input in messages.

Sources: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/;
RFC 1123 (DNS names); RFC 6335 section 5.1 (port names).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import lru_cache

SHOWN_CHARACTERS = 60
"""Limit of input quoted in a message, in characters."""

LISTED_NAMES = 4
"""How many names or values a sentence lists; further ones are counted."""

_WORDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a fraction",
    type(None): "null",
}

_PLAIN = re.compile(r"[ !#-\[\]-~]{0,58}\Z")
"""What `shown` only puts quotes around."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")

LABEL_LENGTH = 63
SUBDOMAIN_LENGTH = 253
PORT_NAME_LENGTH = 15


def shown(value: object) -> str:
    """`value` for a message: short, on one line, control characters escaped."""
    if isinstance(value, (dict, list)):
        return word_for(value)
    text = json.dumps(value, default=str) if not isinstance(value, int) or value.bit_length() < 200 else "a huge number"
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def plain(text: str) -> str:
    """`text` without quotes, control and non-ASCII characters escaped, for names and paths in messages."""
    if _PLAIN.match(text):
        return text
    return shown(text)[1:-1] if len(text) <= SHOWN_CHARACTERS else shown(text)[1:]


def word_for(value: object) -> str:
    """The JSON type of `value`."""
    return _WORDS.get(type(value), "a value")


def label_fault(name: str) -> str:
    """The reason why `name` is not a DNS label (a namespace's name), or empty."""
    if len(name) > LABEL_LENGTH:
        return f"{shown(name)} is longer than {LABEL_LENGTH} characters"
    return "" if _LABEL.match(name) else f"{shown(name)} may hold a-z, 0-9 and inner '-' only"


def subdomain_fault(name: str) -> str:
    """The reason why `name` is not a DNS subdomain (most objects' names), or empty."""
    if len(name) > SUBDOMAIN_LENGTH:
        return f"{shown(name)} is longer than {SUBDOMAIN_LENGTH} characters"
    return "" if _SUBDOMAIN.match(name) else f"{shown(name)} may hold a-z, 0-9, and '-' and '.' between them only"


def joined(names: Collection[str], limit: int | None = LISTED_NAMES) -> str:
    """`a, b and c`; beyond `limit` names (None: no limit) `a, b and 7 more`. Empty without names."""
    shown = list(names)[:limit]
    if limit is not None and len(names) > limit:
        shown.append(f"{len(names) - limit} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


@lru_cache(maxsize=4096)
def key_fault(key: str) -> str:
    """The reason why `key` is not a label key, or empty."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > SUBDOMAIN_LENGTH or not _SUBDOMAIN.match(prefix)):
        return f"label key {shown(key)} has a prefix that is no DNS name"
    if len(name) > LABEL_LENGTH:
        return f"label key {shown(key)} is longer than {LABEL_LENGTH} characters"
    return "" if _WORD.match(name) else f"label key {shown(key)} may hold letters, digits and inner '-', '_', '.' only"


@lru_cache(maxsize=4096)
def value_fault(value: str) -> str:
    """The reason why `value` is not a label value, or empty; the empty value is valid."""
    if len(value) > LABEL_LENGTH:
        return f"label value {shown(value)} is longer than {LABEL_LENGTH} characters"
    if value and not _WORD.match(value):
        return f"label value {shown(value)} may hold letters, digits and inner '-', '_', '.' only"
    return ""


def port_name_fault(name: str) -> str:
    """The reason why `name` is not a port name, or empty."""
    if len(name) > PORT_NAME_LENGTH:
        return f"port name {shown(name)} is longer than {PORT_NAME_LENGTH} characters"
    if _PORT_NAME.match(name):
        return ""
    hint = " (a port number is written without quotes)" if name.isdigit() else ""
    return f"port name {shown(name)} may hold a-z, 0-9 and single inner '-', at least one letter{hint}"
