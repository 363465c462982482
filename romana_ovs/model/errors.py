"""The one tree of errors that romana-ovs raises on purpose."""

from __future__ import annotations

from dataclasses import dataclass


class RomanaError(Exception):
    """Base of every error of ours; never raised itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one input: where it stands and why, in words an operator can act on.

    `document` counts from 1 inside `file`; `field` is a path such as `spec.ingress[0].ports[1].port`.
    Unknown parts are empty strings (or 0).
    """

    reason: str
    file: str = ""
    document: int = 0
    kind: str = ""
    name: str = ""
    field: str = ""

    def __str__(self) -> str:
        """One sentence: file, object, field, reason, as far as each is known."""
        where = []
        if self.file:
            where.append(f"{self.file}, document {self.document}" if self.document else self.file)
        if self.kind or self.name:
            where.append(f"{self.kind} {self.name}".strip())
        if self.field:
            where.append(self.field)
        return ": ".join([*where, self.reason])


class InputError(RomanaError):
    """Something given to us (a manifest, a setting, an argument) cannot be used."""

    def __init__(self, *problems: Problem) -> None:
        self.problems: tuple[Problem, ...] = problems
        super().__init__("; ".join(str(problem) for problem in problems))

    @classmethod
    def because(cls, reason: str, *, file: str = "", field: str = "") -> InputError:
        """An error of one problem that concerns no particular object."""
        return cls(Problem(reason, file=file, field=field))


class AddressError(RomanaError):
    """An address plan cannot fit, or a range or number has run out."""


class PipelineError(RomanaError):
    """A flow breaks the declaration of its table: our own mistake, never the user's."""


class SwitchError(RomanaError):
    """A switch, or its database, refused or misunderstood what was asked of it."""


class SetupError(RomanaError):
    """This machine lacks what the command needs (root, Open vSwitch, a free name)."""
