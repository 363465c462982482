"""Reads whole tables of an Open vSwitch database once, without watching it. Source: RFC 7047 sections 4.1.3 and 5."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import eventlet

from romana_ovs.model.errors import SwitchError
from romana_ovs.switch.vswitchd import exchange

ANSWER_SECONDS = 2.0
"""Deadline of one query."""

Row = Mapping[str, Any]
"""One row by column; sets are tuples, maps are dicts, and UUIDs their texts."""


def read_tables(remote: str, columns: Mapping[str, Sequence[str]]) -> dict[str, tuple[Row, ...]]:
    """All rows of the tables in `columns`, with these columns and `_uuid`.

    Raises SwitchError when the database is not on this machine or does not answer.
    """
    if not remote.startswith("unix:"):
        raise SwitchError(f"the database {remote} is not a unix socket of this machine")
    path = Path(remote.removeprefix("unix:"))
    selects = [
        {"op": "select", "table": table, "where": [], "columns": ["_uuid", *names]} for table, names in columns.items()
    ]
    request = json.dumps({"method": "transact", "params": ["Open_vSwitch", *selects], "id": 0}).encode()
    late = SwitchError(f"{path}: no answer within {ANSWER_SECONDS:g} s")
    try:
        with eventlet.Timeout(ANSWER_SECONDS, late):
            answer = exchange(path, request)
    except OSError as error:
        raise SwitchError(f"{path}: {os.strerror(error.errno) if error.errno else error}") from error
    results = answer.get("result")
    if answer.get("error") is not None or not isinstance(results, list) or len(results) < len(columns):
        raise SwitchError(f"{path}: the query was refused: {answer.get('error')}")
    return {table: _rows(path, table, result) for table, result in zip(columns, results, strict=False)}


def _rows(path: Path, table: str, result: Any) -> tuple[Row, ...]:
    if not isinstance(result, dict) or not isinstance(result.get("rows"), list):
        raise SwitchError(f"{path}: the table {table} cannot be read: {result}")
    return tuple({column: _value(value) for column, value in row.items()} for row in result["rows"])


def _value(value: Any) -> Any:
    """A value of RFC 7047 section 5.1 as Python has it."""
    if not isinstance(value, list) or len(value) != 2:
        return value
    kind, content = value
    if kind == "set":
        return tuple(map(_value, content))
    return {_value(key): _value(each) for key, each in content} if kind == "map" else content
