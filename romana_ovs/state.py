"""Keeps numbers in a file, in which they survive a restart.

A file is one line of heading (format, version, length and SHA-256 of what follows) and one JSON object. It is
written beside the old one, made durable, and put in its place; the old one stays as `NAME.previous`. So whatever a
crash leaves, one of the two is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romana_ovs.model.errors import InputError

LOG = logging.getLogger(__name__)

FORMAT = "romana-ovs state"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value of a state that is JSON text already: what seldom changes is written down once, saved as it stands."""

    text: str

    @classmethod
    def of(cls, value: object) -> Encoded:
        """`value`, in the form in which all of a state is written."""
        return cls(json.dumps(value, separators=(",", ":"), sort_keys=True))


class StateFile:
    """The state at `path`; one process at a time may write it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Touches nothing yet."""
        self.path = Path(path)
        self.previous = self.path.with_name(self.path.name + ".previous")
        self._whole = False

    def load(self) -> dict[str, Any] | None:
        """What was saved last; None when there never was anything.

        A file that is torn or was changed by others gives way to the previous one, and the log says so. Raises
        InputError when that cannot be used either: numbers that pods have must not be given out anew.
        """
        self._whole = False
        reasons = []
        for path in (self.path, self.previous):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                reasons.append("")
                continue
            except OSError as error:
                raise InputError.because(f"the state cannot be read: {error.strerror}", file=str(path)) from error
            state = _body(data)
            if isinstance(state, dict):
                self._whole = path is self.path
                if not self._whole:
                    why = f"is damaged ({reasons[0]})" if reasons[0] else "is missing"
                    LOG.warning("state file %s %s: going on with the one before, %s", self.path, why, path)
                return state
            reasons.append(state)
        if not any(reasons):
            return None
        main, spare = (reason or "missing" for reason in reasons)
        raise InputError.because(
            f"the state is damaged ({main}), and so is {self.previous.name} ({spare}); restore one of the two from a "
            "backup, or remove both to give every pod a new address",
            file=str(self.path),
        )

    def save(self, state: Mapping[str, Any]) -> None:
        """Makes `state` what the next `load` returns, crash or not.

        Values may be Encoded. Raises InputError naming the file when it cannot be written.
        """
        body = _text(state).encode()
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            with new.open("wb") as file:
                file.write(_heading(body) + body)
                file.flush()
                os.fsync(file.fileno())
            # A damaged file must not push a whole one out of its place.
            if self._whole or self._is_whole():
                self._whole = False  # not in its place any more, should what follows fail
                os.replace(self.path, self.previous)
                _make_durable(self.path.parent)
            os.replace(new, self.path)
            _make_durable(self.path.parent)
        except OSError as error:
            reason = f"the state cannot be written: {error.strerror}"
            raise InputError.because(reason, file=str(self.path)) from error
        self._whole = True

    def _is_whole(self) -> bool:
        try:
            return isinstance(_body(self.path.read_bytes()), dict)
        except FileNotFoundError:
            return False


def _text(state: Mapping[str, Any]) -> str:
    values = {key: value if isinstance(value, Encoded) else Encoded.of(value) for key, value in state.items()}
    return "{" + ",".join(f"{json.dumps(key)}:{values[key].text}" for key in sorted(values)) + "}"


def _heading(body: bytes) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    heading = {"format": FORMAT, "version": VERSION, "length": len(body), "sha256": digest}
    return json.dumps(heading).encode() + b"\n"


def _body(data: bytes) -> dict[str, Any] | str:
    """The saved object, or why there is none."""
    line, newline, body = data.partition(b"\n")
    try:
        heading = json.loads(line)
    except ValueError:
        return "its first line is no heading of ours"
    if not newline or not isinstance(heading, dict) or heading.get("format") != FORMAT:
        return "its first line is no heading of ours"
    if heading.get("version") != VERSION:
        return f"version {heading.get('version')}, this program reads version {VERSION}"
    if heading.get("length") != len(body):
        return f"{len(body)} bytes of {heading.get('length')}"
    if heading.get("sha256") != hashlib.sha256(body).hexdigest():
        return "its checksum does not match"
    state = json.loads(body)
    return state if isinstance(state, dict) else "it holds no object"


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
