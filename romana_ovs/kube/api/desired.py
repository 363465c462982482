"""Defines the messages about leadership, and about the statuses and Events that the controller wants.

All of them are pickled: mappings must be plain dicts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from romana_ovs.kube.api.election import Timing
from romana_ovs.kube.decode.objects import ObjectId, Version

MAX_MESSAGE = 1000
"""Characters of a message; an Event's note may have 1,024 bytes (kubernetes/pkg/apis/core/validation/events.go)."""


class ConditionStatus(Enum):
    """The status of a condition (metav1.ConditionStatus)."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """A metav1.Condition without its times: `reason` is one CamelCase word, `message` is for people."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The desired status of this version of a policy."""

    version: Version
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class TierStatus:
    """One tier of a tenant: its segment number, its ranges (CIDRs), and the number of pods with addresses."""

    name: str
    segment: int
    ranges: tuple[str, ...]
    pods: int


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """The desired status of a Tenant; without `version` the object does not exist and is created.

    `tenant` is the name of the tenant, which may differ from that of the object. `pods` counts those with addresses.
    """

    tenant: str
    conditions: tuple[Condition, ...]
    ranges: tuple[str, ...] = ()
    tiers: tuple[TierStatus, ...] = ()
    pods: int = 0
    version: Version | None = None


Status = PolicyStatus | TenantStatus


@dataclass(frozen=True, slots=True)
class ObjectWarning:
    """A desired Event on an object that cannot be used as it is: `reason` is one CamelCase word, `note` explains it."""

    version: Version
    reason: str
    note: str


# From the controller to the process.


@dataclass(frozen=True, slots=True)
class JoinElection:
    """Requests that the process takes part in the election for the Lease `namespace`/`name`, as holder `identity`.

    That is a unique name of the controller, the same for all Kubernetes processes that it starts: so the next one
    continues the leadership of the one before.
    """

    identity: str
    namespace: str = "kube-system"
    name: str = "romana-ovs"
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class ReplaceStatuses:
    """Replaces all desired statuses."""

    statuses: Mapping[ObjectId, Status]


@dataclass(frozen=True, slots=True)
class UpdateStatuses:
    """Changes some desired statuses; None removes one."""

    changed: Mapping[ObjectId, Status | None]


@dataclass(frozen=True, slots=True)
class ReplaceWarnings:
    """Replaces all desired warnings."""

    objects: Mapping[ObjectId, ObjectWarning]


@dataclass(frozen=True, slots=True)
class UpdateWarnings:
    """Changes some desired warnings; None removes one."""

    changed: Mapping[ObjectId, ObjectWarning | None]


# From the process to the controller.


@dataclass(frozen=True, slots=True)
class Leadership:
    """Whether this process leads, and who holds the lease.

    `ended`: the process has left the election; no further message follows.
    """

    leads: bool
    holder: str
    ended: bool = False


def single_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text` as one line of printable ASCII of at most `limit` characters, escaped as in JSON."""
    line = json.dumps(text)[1:-1].replace('\\"', '"').replace("\\\\", "\\").replace("\x7f", "\\u007f")
    return line if len(line) <= limit else line[: limit - 3] + "..."
