"""Generates names for objects that have only metadata.generateName, always the same one for the same place.

Source: Kubernetes' apiserver `names.SimpleNameGenerator`, which adds five random characters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""The characters of generated names (apimachinery `rand.String`)."""
_LENGTH = 5
_MAX_BASE = 63 - _LENGTH
"""Longer bases are cut."""


def with_generated_name(value: Mapping[str, object], place: str) -> Mapping[str, object]:
    """`value` with a generated metadata.name if it has a generateName only; `place` sets it apart from others."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") is not None:
        return value
    base = metadata.get("generateName")
    if not isinstance(base, str) or not base:
        return value
    return {**value, "metadata": {**metadata, "name": generated_name(base, place)}}


def generated_name(base: str, place: str) -> str:
    """`base` and five characters that depend on it and on `place`."""
    number = int.from_bytes(hashlib.sha256(f"{place}#{base}".encode()).digest(), "big")
    suffix = ""
    for _ in range(_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        suffix += _ALPHABET[index]
    return base[:_MAX_BASE] + suffix
