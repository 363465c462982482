"""Computes the statuses and warnings that the API server should show for our objects.

Pure: from what the controller knows at one moment. What changes often is no part of any message, so that a busy
cluster makes no writes; and nothing here names another tenant's pods or addresses to a reader of one namespace.
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
from romana_ovs.policy.published import Observed

PROGRAMMED, INVALID, READY = "Programmed", "Invalid", "Ready"
LIMITED, SCTP_OPEN = "Limited", "SCTPPortsOpen"
"""The types of our conditions."""
TENANT = "Tenant"
POLICIES = (ROMANA_POLICY, "NetworkPolicy")
SHOWN = 5
"""Problems of one object that are told; of further ones the number."""

SCTP_SENTENCE = (
    "Some switch tracks SCTP by addresses alone (Open vSwitch before 3.2, userspace): a server that a client has sent "
    "SCTP to can open associations to any port of that client for as long as they talk, and a minute longer."
)

T = TypeVar("T")


class Validity(Enum):
    """What there is of an object whose present version has problems; the value is the reason of its Event."""

    WARNING = "Questionable"
    """It counts as it stands."""
    LAST_VALID = "InvalidEdit"
    """The last valid version stays."""
    INVALID = "Invalid"
    """There never was a valid version."""


@dataclass(frozen=True, slots=True)
class ObservedState:
    """What is known at one moment of the objects of the API server.

    `versions` are those that were read last, of all objects that may be told about. `programmed` are those that
    were read when the last round began which every switch has confirmed. `kept` and `problems` are as in
    ClusterSnapshot; `invalid` are all whose present version means nothing, the kept ones included. `unplaced` are the
    problems of World; `failing` says whether some switch refuses what it is given, or some node's tables cannot be
    made.
    `sctp_open` are the policies that name SCTP, where some switch tracks it by addresses alone.
    """

    versions: Mapping[ObjectId, Version]
    programmed: Mapping[ObjectId, Version] | None = None
    problems: tuple[Problem, ...] = ()
    kept: Collection[ObjectId] = ()
    invalid: Collection[ObjectId] = ()
    unplaced: tuple[Problem, ...] = ()
    failing: bool = False
    sctp_open: Collection[ObjectId] = ()


def object_of(problem: Problem) -> ObjectId:
    """The object that `problem`, of the API server's objects or of World, is about."""
    namespace, _, name = problem.name.rpartition("/")
    return ObjectId(problem.kind, namespace, name)


def policy_statuses(now: ObservedState) -> dict[ObjectId, PolicyStatus]:
    """The status of every policy of ours."""
    problems = _by_object(now.problems)
    return {
        key: PolicyStatus(version, _conditions(key, version, problems.get(key, ()), now))
        for key, version in now.versions.items()
        if key.kind == ROMANA_POLICY
    }


def _conditions(
    key: ObjectId, version: Version, problems: tuple[Problem, ...], now: ObservedState
) -> tuple[Condition, ...]:
    validity = _validity(key, now)
    found = (_programmed(validity, _progress(key, version, now)), _invalid(validity, problems))
    if key in now.sctp_open:
        return (*found, Condition(SCTP_OPEN, ConditionStatus.TRUE, "TrackedByAddresses", single_line(SCTP_SENTENCE)))
    return found


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


def _progress(key: ObjectId, version: Version, now: ObservedState) -> _Progress:
    if now.programmed is not None and now.programmed.get(key) == version:
        return _Progress.CONFIRMED
    if now.failing:
        return _Progress.FAILED
    return _Progress.BEGINNING if now.programmed is None else _Progress.PENDING


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
        return Condition(INVALID, ConditionStatus.TRUE, INVALID, _listed(problems))
    if problems:
        return Condition(INVALID, ConditionStatus.FALSE, Validity.WARNING.value, _listed(problems))
    return Condition(INVALID, ConditionStatus.FALSE, "Valid")


def refused_objects(now: ObservedState) -> dict[ObjectId, ObjectWarning]:
    """Every object with problems that the API server has, with what to say about it in an Event."""
    found: dict[ObjectId, ObjectWarning] = {}
    for key, problems in _by_object(now.problems).items():
        if (version := now.versions.get(key)) is not None:
            validity = _validity(key, now)
            found[key] = ObjectWarning(
                version, validity.value, single_line(f"{_listed(problems)}. {_consequence(key, validity)}")
            )
    for key, problems in _by_object(now.unplaced).items():
        if key not in found and (version := now.versions.get(key)) is not None:
            reason = "NoAddress" if key.kind == "Pod" else "NoNumber"
            note = "; ".join(dict.fromkeys(_discreet(problem.reason, key) for problem in problems))
            found[key] = ObjectWarning(version, reason, single_line(f"{note}."))
    for key in now.sctp_open:
        # Policies of ours have a condition that says so.
        if key.kind != ROMANA_POLICY and key not in found and (version := now.versions.get(key)) is not None:
            found[key] = ObjectWarning(version, SCTP_OPEN, single_line(SCTP_SENTENCE))
    return found


def _consequence(key: ObjectId, validity: Validity) -> str:
    """What happens instead of what the object asks for."""
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
    unplaced: Iterable[Problem] = (),
    full: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[ObjectId, TenantStatus]:
    """The status of every tenant that has ranges or a Tenant object.

    `tenants` are the objects there are, by the tenant's true name: the object's name and its version. One that is
    missing is wanted under `tenant_object_name`. `unplaced` are the problems of World, `full` the nodes where a tenant
    has as many connections as it may have, by tenant.
    """
    lacking = _lacking(unplaced, cluster)
    used = {use.tenant: use for use in usage.tenants if use.tenant != NO_TENANT}
    found = {}
    for tenant in sorted({*used, *tenants, *(lacking.keys() - {NO_TENANT})}):
        name, version = tenants.get(tenant, (tenant_object_name(tenant), None))
        found[ObjectId(TENANT, "", name)] = _tenant(
            tenant, used.get(tenant), lacking.get(tenant, ()), version, full.get(tenant, ())
        )
    return found


def _tenant(
    tenant: str, use: TenantUse | None, lacking: tuple[Problem, ...], version: Version | None, full: Sequence[str]
) -> TenantStatus:
    if lacking:
        reasons = list(dict.fromkeys(problem.reason for problem in lacking))
        message = _some([f"Some pods have no address: {reasons[0]}", *reasons[1:]])
        ready = Condition(READY, ConditionStatus.FALSE, "NoAddress", message)
    elif use is None:
        ready = Condition(READY, ConditionStatus.TRUE, "NoPods", "It gets its ranges with its first pod.")
    else:
        ready = Condition(READY, ConditionStatus.TRUE, "Allocated", "All of its pods have addresses.")
    conditions = (ready, _limited(full)) if full else (ready,)
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
    where = _some([f"On node {nodes[0]}", *(f"on node {node}" for node in nodes[1:])])
    message = (
        f"{where} it has as many connections as it may have (tenant_connections): more are refused or get no answer "
        "until some of them end."
    )
    return Condition(LIMITED, ConditionStatus.TRUE, "ConnectionLimit", single_line(message))


def full_on(seen: Mapping[str, Observed]) -> dict[str, tuple[str, ...]]:
    """The nodes where a tenant has as many connections as it may have, sorted, by tenant."""
    tenants = {tenant for observed in seen.values() for tenant in observed.tenants_at_limit}
    return {tenant: tuple(sorted(node for node in seen if tenant in seen[node].tenants_at_limit)) for tenant in tenants}


def _tier(segment: SegmentUse) -> TierStatus:
    return TierStatus(segment.tier, segment.number, tuple(str(network) for network in segment.ranges), segment.used)


def differences(before: Mapping[ObjectId, T], now: Mapping[ObjectId, T]) -> dict[ObjectId, T | None]:
    """What of `now` is not as it was before; None for what is not there any more."""
    changed: dict[ObjectId, T | None] = {key: value for key, value in now.items() if before.get(key) != value}
    return changed | dict.fromkeys(before.keys() - now.keys())


def _by_object(problems: Iterable[Problem]) -> dict[ObjectId, tuple[Problem, ...]]:
    found: defaultdict[ObjectId, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[object_of(problem)].append(problem)
    return {key: tuple(each) for key, each in found.items()}


def _validity(key: ObjectId, now: ObservedState) -> Validity:
    if key in now.kept:
        return Validity.LAST_VALID
    return Validity.INVALID if key in now.invalid else Validity.WARNING


def _listed(problems: Iterable[Problem]) -> str:
    """The fields and reasons of `problems`, on one line; the object is known to the reader."""
    return _some([f"{each.field}: {each.reason}" if each.field else each.reason for each in problems])


def _some(texts: list[str]) -> str:
    shown = "; ".join(texts[:SHOWN])
    return single_line(f"{shown}; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else shown)


_POD = re.compile(r"\bpod (?P<namespace>[-a-z0-9]+)/[-.a-z0-9]+")


def _discreet(reason: str, key: ObjectId) -> str:
    """`reason` without the names of pods in other namespaces than that of the object it is told to."""
    return _POD.sub(lambda found: found[0] if found["namespace"] == key.namespace else "a pod elsewhere", reason)


def _lacking(unplaced: Iterable[Problem], cluster: Cluster) -> dict[str, tuple[Problem, ...]]:
    """The problems of World about tenants, and about pods by the tenant of the pod."""
    found: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in unplaced:
        if problem.kind == TENANT:
            found[problem.name].append(problem)
        pod = cluster.pods.get(PodKey(problem.name)) if problem.kind == "Pod" else None
        if pod is not None:
            found[cluster.tenant_of(pod)].append(problem)
    return {tenant: tuple(each) for tenant, each in found.items()}
