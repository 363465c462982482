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


class ApiError(RomanaError):
    """The Kubernetes API server cannot be asked, or does not do what it was asked; one of its kinds is raised.

    `status` is the HTTP status, 0 when there was no answer. `retry_after` is how many seconds the server
    asks to wait, None when it does not say.
    """

    def __init__(self, sentence: str, *, status: int = 0, retry_after: float | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(sentence)


class CredentialsError(ApiError):
    """What says where the API server is and who we are (a kubeconfig, a pod's own account) cannot be used."""


class UnreachableError(ApiError):
    """The API server cannot be connected to, or is not who it should be, or answers nothing in time."""


class TornError(ApiError):
    """An answer of the API server ended too early, stood still for too long, or is not what was asked for."""


class DeniedError(ApiError):
    """401 or 403: the API server does not know us, or does not let us."""


class MissingError(ApiError):
    """404: there is no such object, or no such kind."""


class ConflictError(ApiError):
    """409: the object exists already, or is another version than the one that was to be changed."""


class ExpiredError(ApiError):
    """410: the API server no longer has the version from which we wanted to go on."""


class BusyError(ApiError):
    """429: the API server asks for patience."""


class RefusedError(ApiError):
    """Any other 4xx: the API server does not accept what it was given."""


class FaultyError(ApiError):
    """5xx: the API server failed."""


MISTAKES = (RomanaError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a mistake of ours raises where nothing but values are worked out: it is to be about as few as it can be."""
