"""Defines the errors that romana-ovs raises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class RomanaError(Exception):
    """Base of all errors of romana-ovs; never raised itself."""


class Severity(Enum):
    """How much a problem matters; the value is its name in JSON."""

    ERROR = "error"
    """The input is invalid, or something in it is not acted on and decides about connections."""
    WARNING = "warning"
    """The input is valid, but probably not what was intended."""
    INFO = "info"
    """A note: worth a look, and often intended."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of one input: its place and the reason, in words that an operator can act on.

    `document` counts from 1 inside `file`; `field` is a path such as `spec.ingress[0].ports[1].port`.
    Unknown parts are empty strings (or 0).
    """

    reason: str
    file: str = ""
    document: int = 0
    kind: str = ""
    name: str = ""
    field: str = ""
    severity: Severity = Severity.ERROR

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
    """An input (a manifest, a setting, an argument) cannot be used."""

    def __init__(self, *problems: Problem) -> None:
        self.problems: tuple[Problem, ...] = problems
        super().__init__("; ".join(str(problem) for problem in problems))

    @classmethod
    def because(cls, reason: str, *, file: str = "", field: str = "") -> InputError:
        """An error of one problem that concerns no particular object."""
        return cls(Problem(reason, file=file, field=field))


class AddressError(RomanaError):
    """An address plan cannot fit, or a range or number has run out."""


class InternalError(RomanaError):
    """An event or a value that only a mistake in this program can cause."""


class PipelineError(InternalError):
    """An internal error of the pipeline, such as a flow that breaks the declaration of its table."""


class SwitchError(RomanaError):
    """A switch or its database refused a request or sent an invalid answer."""


class SetupError(RomanaError):
    """This machine lacks what the command needs (root, Open vSwitch, a free name)."""


class ApiError(RomanaError):
    """A request to the Kubernetes API server failed; one of the subclasses is raised.

    `status` is the HTTP status, 0 without a response. `retry_after` is the response's Retry-After in seconds, or
    None.
    """

    def __init__(self, sentence: str, *, status: int = 0, retry_after: float | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(sentence)


class CredentialsError(ApiError):
    """The kubeconfig or service account for the API server cannot be used."""


class UnreachableError(ApiError):
    """The API server cannot be reached, has an invalid certificate, or does not answer in time."""


class TornError(ApiError):
    """An answer of the API server is truncated, stalled, or of an unexpected kind."""


class DeniedError(ApiError):
    """401 or 403: not authenticated, or not authorized."""


class MissingError(ApiError):
    """404: the object or its kind does not exist."""


class ConflictError(ApiError):
    """409: the object exists already, or its resourceVersion differs from that of the update."""


class ExpiredError(ApiError):
    """410: the API server no longer has the requested version."""


class BusyError(ApiError):
    """429: too many requests."""


class RefusedError(ApiError):
    """Any other 4xx: the API server rejects the request."""


class FaultyError(ApiError):
    """5xx: the API server failed."""


INTERNAL_ERRORS = (RomanaError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The exceptions that an internal error in pure code raises. They are caught where one object can be isolated."""
