"""What the controller and the process that talks to the API server tell each other about writing.

Everything here is pickled: mappings must be plain dicts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from romana_ovs.kube.api.election import Timing
from romana_ovs.kube.decode.objects import ObjectId, Version

SENTENCE = 1000
"""Characters of a message. An Event takes 1,024 bytes (kubernetes/pkg/apis/core/validation/events.go)."""


class Truth(Enum):
    """The status of a condition (metav1.ConditionStatus)."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """A metav1.Condition without its times: `reason` is one CamelCase word, `message` a sentence for people."""

    type: str
    truth: Truth
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """What the status of a policy should say about this version of it."""

    version: Version
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class TierStatus:
    """One tier of a tenant: the number of its segment, its ranges (CIDRs), how many pods have addresses in it."""

    name: str
    segment: int
    ranges: tuple[str, ...]
    pods: int


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """What the status of a Tenant should say; without `version` there is no such object, and it is to be made.

    `tenant` is the tenant's true name. `pods` counts those that have addresses.
    """

    tenant: str
    conditions: tuple[Condition, ...]
    ranges: tuple[str, ...] = ()
    tiers: tuple[TierStatus, ...] = ()
    pods: int = 0
    version: Version | None = None


Status = PolicyStatus | TenantStatus


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that is not acted on as it stands: `reason` is one CamelCase word, `note` the sentences why."""

    version: Version
    reason: str
    note: str


# The controller to its process.


@dataclass(frozen=True, slots=True)
class Lead:
    """Take part in the election for the Lease `namespace`/`name`, as `me`; write nothing before it is won.

    `me` is a name of the controller that nobody else has, the same for every Kubernetes process that it starts: one
    that follows another, which has ended, goes on as the leader that the other was.
    """

    me: str
    namespace: str = "kube-system"
    name: str = "romana-ovs"
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class AllStatuses:
    """All statuses that are wanted from now on."""

    statuses: Mapping[ObjectId, Status]


@dataclass(frozen=True, slots=True)
class SomeStatuses:
    """Statuses that are wanted otherwise than before; None: not any more."""

    changed: Mapping[ObjectId, Status | None]


@dataclass(frozen=True, slots=True)
class AllRefused:
    """All objects that are refused now."""

    objects: Mapping[ObjectId, Refused]


@dataclass(frozen=True, slots=True)
class SomeRefused:
    """Objects that are refused otherwise than before; None: not any more."""

    changed: Mapping[ObjectId, Refused | None]


# The process to the controller.


@dataclass(frozen=True, slots=True)
class Leadership:
    """Whether this process leads, under which epoch (0 when it does not), and whom the lease names.

    `ended` is the last word: the process has resigned.
    """

    leads: bool
    epoch: int
    holder: str
    ended: bool = False


def sentence(text: str, limit: int = SENTENCE) -> str:
    """`text` on one line of plain ASCII of at most `limit` characters: whatever it repeats is escaped as in JSON."""
    line = json.dumps(text)[1:-1].replace('\\"', '"').replace("\\\\", "\\").replace("\x7f", "\\u007f")
    return line if len(line) <= limit else line[: limit - 3] + "..."
