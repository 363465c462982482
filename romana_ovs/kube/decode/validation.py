"""Reads fields of an untyped object and collects every error (as apimachinery's `field.ErrorList`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from romana_ovs.model.errors import Severity
from romana_ovs.model.syntax import plain, shown, word_for

NO_FIELDS: Mapping[str, object] = {}


class Finding(NamedTuple):
    """A problem of one object: the path of the field from the object, the reason, and the severity."""

    path: str
    reason: str
    severity: Severity = Severity.ERROR


class Validator:
    """Validates one object; `prefix` is the path to it from the top of its document.

    Paths given to its methods are relative to the object, such as `spec.ingress[0]`. `unknown_in` holds the
    paths of mappings with an unknown field. `unsupported` are parts that are valid and not acted on, `notes` what is
    worth a note.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.findings: list[Finding] = []
        self.unsupported: list[Finding] = []
        self.notes: list[Finding] = []
        self.unknown_in: set[str] = set()
        self.valid = True

    def error(self, path: str, reason: str) -> None:
        """Record that the value at `path` makes the object invalid."""
        self.valid = False
        self.findings.append(Finding(path, reason))

    def warning(self, path: str, reason: str) -> None:
        """Record a problem with which the object is still valid."""
        self.findings.append(Finding(path, reason, Severity.WARNING))

    def not_supported(self, path: str, reason: str) -> None:
        """Record that the value at `path` is valid, decides about connections, and is not acted on."""
        self.unsupported.append(Finding(path, reason))

    def note(self, path: str, reason: str, severity: Severity = Severity.INFO) -> None:
        """Record something about the value at `path` for those who check manifests; a controller does not report it."""
        self.notes.append(Finding(path, reason, severity))

    def has(self, path: str) -> bool:
        """Whether there is a finding about `path` itself."""
        return any(finding.path == path for finding in self.findings)

    def has_under(self, path: str) -> bool:
        """Whether there is a finding about `path` or anything below it."""
        return any(
            finding.path == path or finding.path.startswith((path + ".", path + "[")) for finding in self.findings
        )

    def mapping(
        self, value: object, path: str, known: Collection[str] | None = None, *, hint: str = ""
    ) -> Mapping[str, object]:
        """`value` as a mapping; empty when it is null, or something else (an error).

        Fields that are not in `known` are errors; `hint` says what may have been meant.
        """
        if value is None:
            return NO_FIELDS
        if not isinstance(value, dict):
            self.error(path, f"must be an object, not {word_for(value)}")
            return NO_FIELDS
        if known is not None:
            for key in value:
                if key not in known:
                    self.unknown_in.add(path)
                    self.error(f"{path}.{plain(key)}" if path else plain(key), f"unknown field{hint}")
        return value

    def sequence(self, value: object, path: str) -> list[object]:
        """`value` as a list; empty when it is null, or something else (an error)."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.error(path, f"must be a list, not {word_for(value)}")
            return []
        return value

    def mappings_in(
        self, value: object, path: str, known: Collection[str] | None = None, *, hint: str = ""
    ) -> Iterator[tuple[str, Mapping[str, object]]]:
        """(path, mapping) of each mapping in the list `value`; other entries are errors and left out."""
        for index, entry in enumerate(self.sequence(value, path)):
            where = f"{path}[{index}]"
            if isinstance(entry, dict):
                yield where, self.mapping(entry, where, known, hint=hint)
            else:
                self.error(where, f"must be an object, not {word_for(entry)}")

    def string(self, value: object, path: str) -> str:
        """`value` as a string; empty when it is null, or something else (an error)."""
        if value is None:
            return ""
        if not isinstance(value, str):
            hint = ' (quote it, as in "yes" or "12")' if isinstance(value, (bool, int, float)) else ""
            self.error(path, f"must be a string, not {word_for(value)}{hint}")
            return ""
        return value

    def boolean(self, value: object, path: str) -> bool:
        """`value` as a boolean; False when it is null, or something else (an error)."""
        if value is None:
            return False
        if not isinstance(value, bool):
            self.error(path, f"must be true or false, not {shown(value)}")
            return False
        return value

    def integer(self, value: object, path: str, *, low: int, high: int) -> int | None:
        """`value` as an integer in `low`..`high`; None when it is null, or something else (an error)."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.error(path, f"must be a number from {low} to {high}, not {shown(value)}")
            return None
        if not low <= value <= high:
            self.error(path, f"{shown(value)} is not between {low} and {high}")
            return None
        return value
