"""Interprets responses of an API server: JSON, error statuses, and messages that are safe to repeat. Pure."""

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
_MAX_TEXT = 300
"""Characters of the server's message that are repeated."""
_KINDS: Mapping[int, type[ApiError]] = {
    UNAUTHORIZED: DeniedError,
    403: DeniedError,
    404: MissingError,
    409: ConflictError,
    410: ExpiredError,
    429: BusyError,
}


def api_error(status: int, data: bytes, *, request: str, after: float | None = None) -> ApiError:
    """The error for a response to `request` (such as `GET /api`); `after` is its Retry-After in seconds."""
    kind = _KINDS.get(status, FaultyError if status >= 500 else RefusedError)
    message = _status_message(data)
    return kind(f"{request}: {status}{f', {message}' if message else ''}", status=status, retry_after=after)


def parsed(data: bytes) -> Any:
    """JSON text as plain values. Raises TornError when it is invalid."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TornError(f"a response is not valid JSON: {error}") from error


def sanitized(text: str) -> str:
    """Text of a server as a log line may repeat it: short, on one line, and printable."""
    line = " ".join(text[: 2 * _MAX_TEXT].split()).encode("unicode_escape").decode()
    return line if len(line) <= _MAX_TEXT else line[:_MAX_TEXT] + "..."


def _status_message(data: bytes) -> str:
    """The message of a Status object, or the whole text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return sanitized(data[: 2 * _MAX_TEXT].decode(errors="replace"))
    message = value.get("message") if isinstance(value, dict) else None
    return sanitized(message) if isinstance(message, str) else ""
