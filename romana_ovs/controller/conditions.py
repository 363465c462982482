"""Computes the statuses of our objects, and the warnings (Events) about all objects.

Pure. No message has values that change often, so that a busy cluster causes no writes; none names pods or addresses of
another namespace, as whoever reads an object may not be allowed to read those.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.addressing.usage import SegmentUse, TenantUse, Usage
from romana_ovs.kube.admission.tenancy import tenant_object_name
from romana_ovs.kube.api.desired import (
    Condition,
    ConditionStatus,
    ObjectWarning,
    PolicyStatus,
    TenantStatus,
    TierStatus,
    single_line,
)
from romana_ovs.kube.decode.decoder import ROMANA_POLICY
from romana_ovs.kube.decode.objects import ObjectId, Version
from romana_ovs.model.cluster import NO_TENANT, Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import PodKey
from romana_ovs.registry_types.report import Observed

PROGRAMMED, INVALID, READY = "Programmed", "Invalid", "Ready"
LIMITED, SCTP_OPEN = "Limited", "SCTPPortsOpen"
"""The types of our conditions."""
TENANT = "Tenant"
POLICIES = (ROMANA_POLICY, "NetworkPolicy")
MAX_LISTED = 5
"""Problems of one object that are listed at most; of further ones the number is given."""

SCTP_SENTENCE = (
    "Some switch tracks SCTP by addresses alone (Open vSwitch before 3.2, userspace): a server that a client has sent "
    "SCTP to can open associations to any port of that client for as long as they talk, and a minute longer."
)

T = TypeVar("T")


class Validity(Enum):
    """Which version of an object counts when the present one has problems; the value is the reason of its Event."""

    WARNING = "Questionable"
    """It counts as it stands."""
    LAST_VALID = "InvalidEdit"
    """The last valid version stays."""
    INVALID = "Invalid"
    """There was no valid version."""


@dataclass(frozen=True, slots=True)
class ObservedState:
    """The inputs of conditions and Events.

    `versions` are the last ones of all objects that have a status or Events. `programmed` are those of the last round
    that every switch has confirmed. `kept` and `problems` are as in
    ClusterSnapshot; `invalid` are all whose present version is invalid, the kept ones included. `unallocated` are the
    problems of the engine; `failing`: some switch refuses its tables, or some node's cannot be made.
    `sctp_open` are the policies that name SCTP, where some switch tracks it by addresses alone.
    """

    versions: Mapping[ObjectId, Version]
    programmed: Mapping[ObjectId, Version] | None = None
    problems: tuple[Problem, ...] = ()
    kept: Collection[ObjectId] = ()
    invalid: Collection[ObjectId] = ()
    unallocated: tuple[Problem, ...] = ()
    failing: bool = False
    sctp_open: Collection[ObjectId] = ()


def object_of(problem: Problem) -> ObjectId:
    """The object that `problem`, of the API server's objects or of the engine, is about."""
    namespace, _, name = problem.name.rpartition("/")
    return ObjectId(problem.kind, namespace, name)


def policy_statuses(state: ObservedState) -> dict[ObjectId, PolicyStatus]:
    """The status of every policy of ours."""
    problems = _by_object(state.problems)
    return {
        key: PolicyStatus(version, _conditions(key, version, problems.get(key, ()), state))
        for key, version in state.versions.items()
        if key.kind == ROMANA_POLICY
    }


def _conditions(
    key: ObjectId, version: Version, problems: tuple[Problem, ...], state: ObservedState
) -> tuple[Condition, ...]:
    validity = _validity(key, state)
    conditions = (_programmed(validity, _progress(key, version, state)), _invalid(validity, problems))
    if key in state.sctp_open:
        return (
            *conditions,
            Condition(SCTP_OPEN, ConditionStatus.TRUE, "TrackedByAddresses", single_line(SCTP_SENTENCE)),
        )
    return conditions


class _Progress(Enum):
    """How far the switches are with a version of a policy; the value is the reason of the condition."""

    CONFIRMED = "Programmed"
    BEGINNING = "Starting"
    PENDING = "Pending"
    FAILED = "SwitchFailed"


_TEXTS = {
    _Progress.CONFIRMED: (ConditionStatus.TRUE, "Every switch has confirmed it."),
    _Progress.BEGINNING: (
        ConditionStatus.UNKNOWN,
        "romana-ovs has just started, and no switch has confirmed anything yet.",
    ),
    _Progress.PENDING: (ConditionStatus.FALSE, "Not every switch has confirmed it yet."),
    _Progress.FAILED: (
        ConditionStatus.FALSE,
        "Not every switch has taken it; the log of romana-ovs says which, and why.",
    ),
}


def _progress(key: ObjectId, version: Version, state: ObservedState) -> _Progress:
    if state.programmed is not None and state.programmed.get(key) == version:
        return _Progress.CONFIRMED
    if state.failing:
        return _Progress.FAILED
    return _Progress.BEGINNING if state.programmed is None else _Progress.PENDING


def _programmed(validity: Validity, progress: _Progress) -> Condition:
    if validity is Validity.LAST_VALID:
        return Condition(PROGRAMMED, ConditionStatus.FALSE, "LastValidKept", "The last valid version stays in force.")
    if validity is Validity.INVALID:
        message = "Until it is valid, what it selects is isolated, and it allows nothing."
        return Condition(PROGRAMMED, ConditionStatus.FALSE, "Isolating", message)
    truth, message = _TEXTS[progress]
    return Condition(PROGRAMMED, truth, progress.value, message)


def _invalid(validity: Validity, problems: tuple[Problem, ...]) -> Condition:
    if validity is not Validity.WARNING:
        return Condition(INVALID, ConditionStatus.TRUE, INVALID, _join_problems(problems))
    if problems:
        return Condition(INVALID, ConditionStatus.FALSE, Validity.WARNING.value, _join_problems(problems))
    return Condition(INVALID, ConditionStatus.FALSE, "Valid")


def object_warnings(state: ObservedState) -> dict[ObjectId, ObjectWarning]:
    """The Event of every object that has problems."""
    warnings: dict[ObjectId, ObjectWarning] = {}
    for key, problems in _by_object(state.problems).items():
        if (version := state.versions.get(key)) is not None:
            validity = _validity(key, state)
            warnings[key] = ObjectWarning(
                version, validity.value, single_line(f"{_join_problems(problems)}. {_consequence(key, validity)}")
            )
    for key, problems in _by_object(state.unallocated).items():
        if key not in warnings and (version := state.versions.get(key)) is not None:
            reason = "NoAddress" if key.kind == "Pod" else "NoNumber"
            note = "; ".join(dict.fromkeys(_without_other_namespaces(problem.reason, key) for problem in problems))
            warnings[key] = ObjectWarning(version, reason, single_line(f"{note}."))
    for key in state.sctp_open:
        # Policies of ours have a condition that says so.
        if key.kind != ROMANA_POLICY and key not in warnings and (version := state.versions.get(key)) is not None:
            warnings[key] = ObjectWarning(version, SCTP_OPEN, single_line(SCTP_SENTENCE))
    return warnings


def _consequence(key: ObjectId, validity: Validity) -> str:
    """The effect of an object with problems."""
    if validity is Validity.WARNING:
        return "It counts as it stands."
    if validity is Validity.LAST_VALID:
        return "The last valid version stays in force."
    if key.kind in POLICIES:
        return "Until it is valid, what it selects is isolated, and it allows nothing."
    if key.kind == "Pod":
        return "Until it is valid, no other pod reaches it, and it reaches none."
    return "Until it is valid, it does not count."


def tenant_statuses(
    usage: Usage,
    tenants: Mapping[str, tuple[str, Version]],
    *,
    cluster: Cluster,
    unallocated: Iterable[Problem] = (),
    at_limit: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[ObjectId, TenantStatus]:
    """The status of every tenant that has ranges or a Tenant object.

    `tenants` are the existing objects, by tenant: the object's name and its version. A missing one gets the name
    `tenant_object_name`. `unallocated` are the problems of the engine, `at_limit` the nodes where a tenant
    has as many connections as it may have, by tenant.
    """
    problems = _problems_by_tenant(unallocated, cluster)
    uses = {use.tenant: use for use in usage.tenants if use.tenant != NO_TENANT}
    statuses = {}
    for tenant in sorted({*uses, *tenants, *(problems.keys() - {NO_TENANT})}):
        name, version = tenants.get(tenant, (tenant_object_name(tenant), None))
        statuses[ObjectId(TENANT, "", name)] = _tenant(
            tenant, uses.get(tenant), problems.get(tenant, ()), version, at_limit.get(tenant, ())
        )
    return statuses


def _tenant(
    tenant: str, use: TenantUse | None, problems: tuple[Problem, ...], version: Version | None, at_limit: Sequence[str]
) -> TenantStatus:
    if problems:
        reasons = list(dict.fromkeys(problem.reason for problem in problems))
        message = _join([f"Some pods have no address: {reasons[0]}", *reasons[1:]])
        ready = Condition(READY, ConditionStatus.FALSE, "NoAddress", message)
    elif use is None:
        ready = Condition(READY, ConditionStatus.TRUE, "NoPods", "It gets its ranges with its first pod.")
    else:
        ready = Condition(READY, ConditionStatus.TRUE, "Allocated", "All of its pods have addresses.")
    conditions = (ready, _limited(at_limit)) if at_limit else (ready,)
    if use is None:
        return TenantStatus(tenant, conditions, version=version)
    return TenantStatus(
        tenant=tenant,
        conditions=conditions,
        ranges=tuple(str(network) for network in use.ranges),
        tiers=tuple(_tier(segment) for segment in use.segments),
        pods=sum(segment.used for segment in use.segments),
        version=version,
    )


def _limited(nodes: Sequence[str]) -> Condition:
    where = _join([f"On node {nodes[0]}", *(f"on node {node}" for node in nodes[1:])])
    message = (
        f"{where} it has as many connections as it may have (tenant_connections): more are refused or get no answer "
        "until some of them end."
    )
    return Condition(LIMITED, ConditionStatus.TRUE, "ConnectionLimit", single_line(message))


def nodes_at_limit(observed: Mapping[str, Observed]) -> dict[str, tuple[str, ...]]:
    """The nodes where a tenant has as many connections as it may have, sorted, by tenant."""
    tenants = {tenant for node in observed.values() for tenant in node.tenants_at_limit}
    return {
        tenant: tuple(sorted(node for node in observed if tenant in observed[node].tenants_at_limit))
        for tenant in tenants
    }


def _tier(segment: SegmentUse) -> TierStatus:
    return TierStatus(segment.tier, segment.number, tuple(str(network) for network in segment.ranges), segment.used)


def differences(before: Mapping[ObjectId, T], after: Mapping[ObjectId, T]) -> dict[ObjectId, T | None]:
    """The values of `after` that differ from `before`; None for keys that are gone."""
    changed: dict[ObjectId, T | None] = {key: value for key, value in after.items() if before.get(key) != value}
    return changed | dict.fromkeys(before.keys() - after.keys())


def _by_object(problems: Iterable[Problem]) -> dict[ObjectId, tuple[Problem, ...]]:
    by_object: defaultdict[ObjectId, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_object[object_of(problem)].append(problem)
    return {key: tuple(listed) for key, listed in by_object.items()}


def _validity(key: ObjectId, state: ObservedState) -> Validity:
    if key in state.kept:
        return Validity.LAST_VALID
    return Validity.INVALID if key in state.invalid else Validity.WARNING


def _join_problems(problems: Iterable[Problem]) -> str:
    """The fields and reasons of `problems`, on one line, without the object's name."""
    return _join([f"{problem.field}: {problem.reason}" if problem.field else problem.reason for problem in problems])


def _join(texts: list[str]) -> str:
    listed = "; ".join(texts[:MAX_LISTED])
    return single_line(f"{listed}; and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else listed)


_POD = re.compile(r"\bpod (?P<namespace>[-a-z0-9]+)/[-.a-z0-9]+")


def _without_other_namespaces(reason: str, key: ObjectId) -> str:
    """`reason` without names of pods in other namespaces than the object's: its readers may not read those."""
    return _POD.sub(lambda match: match[0] if match["namespace"] == key.namespace else "a pod elsewhere", reason)


def _problems_by_tenant(unallocated: Iterable[Problem], cluster: Cluster) -> dict[str, tuple[Problem, ...]]:
    """The problems of the engine about tenants, and about pods by the tenant of the pod."""
    by_tenant: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in unallocated:
        if problem.kind == TENANT:
            by_tenant[problem.name].append(problem)
        pod = cluster.pods.get(PodKey(problem.name)) if problem.kind == "Pod" else None
        if pod is not None:
            by_tenant[cluster.tenant_of(pod)].append(problem)
    return {tenant: tuple(listed) for tenant, listed in by_tenant.items()}
