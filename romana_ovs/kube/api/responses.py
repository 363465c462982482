"""What an API server's answers say: JSON as plain values, refusals as errors, its own words where they are repeated.

Pure: what a stream of changes holds is read with the same functions as the answer to a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from romana_ovs.model.errors import (
    ApiError,
    BusyError,
    ConflictError,
    DeniedError,
    ExpiredError,
    FaultyError,
    MissingError,
    RefusedError,
    TornError,
)

UNAUTHORIZED = 401
_SENTENCE = 300
"""Longest piece of the server's own words that is repeated."""
_KINDS: Mapping[int, type[ApiError]] = {
    UNAUTHORIZED: DeniedError,
    403: DeniedError,
    404: MissingError,
    409: ConflictError,
    410: ExpiredError,
    429: BusyError,
}


def refusal(status: int, data: bytes, *, asked: str, after: float | None = None) -> ApiError:
    """The error that an answer with this status and body is; `after` is in how many seconds to ask again."""
    kind = _KINDS.get(status, FaultyError if status >= 500 else RefusedError)
    said = _said(data)
    return kind(f"{asked}: {status}{f', {said}' if said else ''}", status=status, retry_after=after)


def parsed(data: bytes) -> Any:
    """JSON text as plain values. Raises TornError when it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TornError(f"an answer is no JSON: {error}") from error


def told(text: str) -> str:
    """Words of a server as a message may repeat them: short, on one line, nothing that is not plain text."""
    line = " ".join(text[: 2 * _SENTENCE].split()).encode("unicode_escape").decode()
    return line if len(line) <= _SENTENCE else line[:_SENTENCE] + "..."


def _said(data: bytes) -> str:
    """The message of a Status object, or the text as it is."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return told(data[: 2 * _SENTENCE].decode(errors="replace"))
    message = value.get("message") if isinstance(value, dict) else None
    return told(message) if isinstance(message, str) else ""
