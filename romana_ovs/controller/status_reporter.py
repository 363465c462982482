"""Reports statuses and Events to the API server while this process leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network

from romana_ovs.addressing.cidrs import merge_cidrs
from romana_ovs.addressing.usage import SegmentUse, TenantUse, Usage
from romana_ovs.controller.conditions import (
    TENANT,
    ObservedState,
    differences,
    nodes_at_limit,
    object_warnings,
    policy_statuses,
    tenant_statuses,
)
from romana_ovs.kube.api.desired import (
    ObjectWarning,
    ReplaceStatuses,
    ReplaceWarnings,
    Status,
    UpdateStatuses,
    UpdateWarnings,
)
from romana_ovs.kube.api.resources import TENANTS
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.cache.raw_cache import RawCache
from romana_ovs.kube.decode.objects import ObjectId, Version
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.derived import Derived
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Policy, PolicyKey, names_sctp
from romana_ovs.registry_types.published import Published
from romana_ovs.registry_types.report import Observed

STATUS_SECONDS, TENANT_SECONDS = 1.0, 5.0
"""Between two comparisons of statuses with the reported ones, and between two counts of tenants' pods."""
Versions = Mapping[ObjectId, Version]


@dataclass(frozen=True, slots=True)
class StatusInputs:
    """The controller's state when statuses are computed; `unallocated` and `failing` are as in ObservedState."""

    snapshot: ClusterSnapshot
    published: Published | None
    unallocated: tuple[Problem, ...] = ()
    failing: bool = False
    observed: Mapping[str, Observed] = field(default_factory=dict)
    """The observations of switches, by node."""


class StatusReporter:
    """Remembers what was reported, so that only differences are sent."""

    def __init__(self, cluster_cache: ClusterCache) -> None:
        self._cluster_cache = cluster_cache
        self._tenants = RawCache([str(TENANTS)])
        self._statuses: dict[ObjectId, Status] | None = None
        self._warnings: dict[ObjectId, ObjectWarning] = {}
        self._programmed: Versions | None = None
        self._sctp_policies: Derived[frozenset[ObjectId]] = Derived()
        self._compared_at = self._counted_at = float("-inf")
        """When statuses were compared last, and the pods of tenants counted."""
        self.next_report: float | None = None
        """When to call `report` again although nothing is new, in the seconds of its `now`."""

    def observe(self, messages: Iterable[object]) -> None:
        """Apply messages about Tenant objects."""
        self._tenants.apply(*messages)

    def reset(self) -> None:
        """A new Kubernetes process runs: everything is to be reported again."""
        self._statuses = None

    def programmed(self, versions: Versions) -> None:
        """Every switch has confirmed the policies in these versions."""
        self._programmed = versions

    def due(self, now: float) -> bool:
        """Whether to call `report` now: STATUS_SECONDS have passed since this was so. Sets `next_report`."""
        if now - self._compared_at >= STATUS_SECONDS:
            self._compared_at, self.next_report = now, None
            return True
        self.next_report = self._compared_at + STATUS_SECONDS
        return False

    def report(self, inputs: StatusInputs, now: float) -> tuple[object, ...]:
        """The messages about statuses and warnings that differ from those reported before.

        Those about tenants come at most every TENANT_SECONDS, as it takes long to count their pods.
        """
        count_pods = now - self._counted_at >= TENANT_SECONDS
        if count_pods:
            self._counted_at = now
        else:
            self.next_report = self._counted_at + TENANT_SECONDS
        return self._differences(inputs, count_pods=count_pods)

    def _differences(self, inputs: StatusInputs, *, count_pods: bool) -> tuple[object, ...]:
        state = ObservedState(
            versions=self._cluster_cache.versions,
            programmed=self._programmed,
            problems=inputs.snapshot.problems,
            kept=inputs.snapshot.kept,
            invalid=self._cluster_cache.invalid,
            unallocated=inputs.unallocated,
            failing=inputs.failing,
            sctp_open=self._sctp_open(inputs),
        )
        statuses: dict[ObjectId, Status] = {**policy_statuses(state)}
        if not count_pods:
            statuses |= {key: status for key, status in (self._statuses or {}).items() if key.kind == TENANT}
        elif inputs.published is not None and self._tenants.synced:
            statuses |= tenant_statuses(
                usage_of_published(inputs.published, inputs.snapshot.cluster),
                self._objects(),
                cluster=inputs.snapshot.cluster,
                unallocated=inputs.unallocated,
                at_limit=nodes_at_limit(inputs.observed),
            )
        warnings_now = object_warnings(state)
        messages: list[object] = []
        if self._statuses is None:
            messages += [ReplaceStatuses(statuses), ReplaceWarnings(warnings_now)]
        else:
            changed, warnings = differences(self._statuses, statuses), differences(self._warnings, warnings_now)
            messages += [UpdateStatuses(changed)] if changed else []
            messages += [UpdateWarnings(warnings)] if warnings else []
        self._statuses, self._warnings = statuses, warnings_now
        return tuple(messages)

    def _sctp_open(self, inputs: StatusInputs) -> frozenset[ObjectId]:
        """The policies that name SCTP, where some switch tracks it by addresses alone."""
        if all(observed.sctp_ports is not False for observed in inputs.observed.values()):
            return frozenset()
        return self._sctp_policies.get((inputs.snapshot.cluster.policies,), _sctp_policies)

    def _objects(self) -> dict[str, tuple[str, Version]]:
        """The existing Tenant objects, by the tenant that their spec names: the object's name and version."""
        objects = {}
        for name, update in self._tenants.of(str(TENANTS)).items():
            spec = (update.raw or {}).get("spec")
            tenant = spec.get("tenant") if isinstance(spec, Mapping) else None
            objects[tenant if isinstance(tenant, str) else name] = (name, Version(update.uid, update.generation))
        return objects


def _sctp_policies(policies: Mapping[PolicyKey, Policy]) -> frozenset[ObjectId]:
    """The policies that name SCTP."""
    return frozenset(
        ObjectId(key.kind, key.namespace, key.name) for key, policy in policies.items() if names_sctp(policy)
    )


def digest(versions: Versions) -> str:
    """A digest that is equal in all processes with the same versions of the same policies."""
    lines = sorted(f"{key.kind} {key.namespace}/{key.name} {one.uid} {one.generation}" for key, one in versions.items())
    return sha256("\n".join(lines).encode()).hexdigest()


def usage_of_published(published: Published, cluster: Cluster) -> Usage:
    """The use of published numbers; `used` are the pods of each segment that have an address.

    The registry does not know which addresses nodes have left: these are 0 here.
    """
    plan = published.plan
    used = Counter(
        cluster.segment_of(pod) for pod in cluster.pods.values() if pod.networked and pod.address is not None
    )
    return Usage(
        plan=plan,
        tenants=tuple(_tenants(published, used)),
        nodes=(),
        foreign=(),
        indexes_left=plan.segments - 1 - sum(block.size for blocks in published.blocks.values() for block in blocks),
        hosts_left=plan.hosts - len(published.hosts),
    )


def _tenants(published: Published, used: Mapping[SegmentKey, int]) -> Iterator[TenantUse]:
    plan = published.plan
    segments: dict[str, list[SegmentUse]] = {}
    for key, numbers in published.indexes.items():
        use = SegmentUse(key.tier, numbers[0], numbers, _ranges(published, numbers), used.get(key, 0), 0)
        segments.setdefault(key.tenant, []).append(use)
    for tenant, blocks in published.blocks.items():
        tenant_segments = tuple(segments.get(tenant, ()))
        indexes = tuple(index for block in blocks for index in block.indexes)
        ranges = tuple(plan.block_cidr(block.base, block.size) for block in blocks)
        spare = len(indexes) - sum(len(segment.indexes) for segment in tenant_segments)
        yield TenantUse(tenant, ranges, indexes, spare, tenant_segments)


def _ranges(published: Published, indexes: Iterable[int]) -> tuple[IPv4Network, ...]:
    return merge_cidrs(published.plan.segment_cidr(index) for index in indexes)
