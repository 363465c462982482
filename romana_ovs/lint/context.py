"""Defines what checks look at: a snapshot of manifests, with the objects of each kind and their locations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from romana_ovs.kube.decode.objects import DecodedObject, SourceLocation
from romana_ovs.kube.decode.workloads import Workload
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.labels import Labels, Operator, Selector
from romana_ovs.model.objects import (
    Direction,
    Pod,
    PodKey,
    Policy,
    PolicyPeer,
    PolicyPort,
    RomanaPolicy,
)
from romana_ovs.model.services import Service
from romana_ovs.policy.evaluate import isolates, selects


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy of either kind: its path in the manifest, its peers and its ports.

    `peers` are empty when the rule is for everyone; those of a Romana policy are podSelectors without a namespace.
    """

    direction: Direction
    path: str
    peers: tuple[PolicyPeer, ...]
    ports: tuple[PolicyPort, ...]
    romana: bool = False

    def peer_path(self, index: int) -> str:
        """The path of a peer."""
        return f"{self.path}.{'from' if self.direction is Direction.INGRESS else 'to'}[{index}]"

    def port_path(self, index: int) -> str:
        """The path of a port."""
        return f"{self.path}.{'toPorts' if self.romana else 'ports'}[{index}]"


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """A policy with its manifest and the pods that it selects: one for each set of labels and ports."""

    policy: Policy
    item: DecodedObject
    pods: tuple[Pod, ...]
    keys: frozenset[PodKey]
    """The keys of `pods`."""

    @property
    def namespace(self) -> str:
        """The namespace of the policy."""
        return self.policy.namespace

    @property
    def names_namespace(self) -> bool:
        """Whether the manifest has metadata.namespace."""
        metadata = self.item.source.get("metadata")
        return isinstance(metadata, Mapping) and bool(metadata.get("namespace"))

    def rules(self) -> Iterator[Rule]:
        """The rules that have an effect: those of the directions that the policy isolates."""
        if isinstance(self.policy, RomanaPolicy):
            start = "allowIncoming" if "allowIncoming" in self.item.source else "spec.allowIncoming"
            for index, romana in enumerate(self.policy.rules):
                yield Rule(Direction.INGRESS, f"{start}[{index}]", romana.peers, romana.ports, romana=True)
            return
        for direction, rules in ((Direction.INGRESS, self.policy.ingress), (Direction.EGRESS, self.policy.egress)):
            for index, rule in enumerate(rules if direction in self.policy.directions else ()):
                yield Rule(direction, f"spec.{direction.value.lower()}[{index}]", rule.peers, rule.ports)

    def policy_rules(self, direction: Direction) -> tuple[Rule, ...]:
        """The rules of one direction."""
        return tuple(rule for rule in self.rules() if rule.direction is direction)

    def isolates(self, direction: Direction) -> bool:
        """Whether the policy isolates its pods in this direction."""
        return isolates(self.policy, direction)

    def warning(self, field: str, reason: str) -> Problem:
        """A finding that is probably a mistake."""
        return self.item.location.problem(field, reason, Severity.WARNING)

    def note(self, field: str, reason: str) -> Problem:
        """A finding that is often intended."""
        return self.item.location.problem(field, reason, Severity.INFO)


@dataclass(frozen=True, slots=True)
class LintContext:
    """A snapshot with its policies, Services and workloads, and the pods of each namespace.

    `pods` has one pod for each set of labels and ports of a namespace: checks are about these, not about replicas.
    """

    snapshot: ClusterSnapshot
    policies: tuple[PolicyObject, ...]
    by_namespace: Mapping[str, tuple[PolicyObject, ...]]
    pods: Mapping[str, tuple[Pod, ...]]
    services: tuple[Service, ...]
    workloads: tuple[tuple[Workload, Labels, SourceLocation], ...]
    selected_namespaces: Mapping[Selector, tuple[str, ...]]
    """For each namespaceSelector of the policies the sorted names of the namespaces that it matches."""
    incomplete_namespaces: frozenset[str]
    """The namespaces with workloads whose pods are not known, so that selectors may mean these."""

    @property
    def cluster(self) -> Cluster:
        """The cluster of the snapshot."""
        return self.snapshot.cluster

    def selecting(self, policy: PolicyObject) -> Iterator[PolicyObject]:
        """The policies of its namespace that select any of its pods, itself included."""
        for one in self.by_namespace[policy.namespace]:
            if not one.keys.isdisjoint(policy.keys):
                yield one

    @property
    def declared_namespaces(self) -> frozenset[str]:
        """The namespaces with an object in the manifests: only the labels of these are known."""
        return frozenset(item.id.name for item in self.snapshot.objects if item.id and item.id.kind == "Namespace")

    @classmethod
    def of(cls, snapshot: ClusterSnapshot) -> LintContext:
        """The context of a snapshot of manifests."""
        pods = _distinct_pods(snapshot.cluster)
        policies = tuple(
            _policy_object(item, item.value, pods, snapshot.cluster)
            for item in snapshot.objects
            if isinstance(item.value, Policy)
        )
        by_namespace: dict[str, list[PolicyObject]] = defaultdict(list)
        for policy in policies:
            by_namespace[policy.namespace].append(policy)
        return cls(
            snapshot,
            policies,
            MappingProxyType({name: tuple(group) for name, group in by_namespace.items()}),
            MappingProxyType(pods),
            tuple(item.value for item in snapshot.objects if isinstance(item.value, Service)),
            tuple(
                (item.value, item.labels, item.location)
                for item in snapshot.objects
                if isinstance(item.value, Workload)
            ),
            MappingProxyType(_selected_namespaces(policies, snapshot.cluster, pods)),
            frozenset(one.name.partition("/")[0] for one in snapshot.left_out if "/" in one.name),
        )

    def peer_pods(self, policy: Policy, peer: PolicyPeer) -> Iterator[Pod]:
        """The pods that a peer with selectors means, whatever tenants and isolation say.

        Those of a Romana policy are of its tenant, in any namespace.
        """
        if peer.ip_block is not None or (peer.pods is None and peer.namespaces is None):
            return
        for pod in self.pods_in(self.peer_namespaces(policy, peer)):
            if isinstance(policy, RomanaPolicy) and self.cluster.tenant_of(pod) != self.cluster.tenant_of_policy(
                policy
            ):
                continue
            if not pod.host_network and (peer.pods is None or peer.pods.matches(pod.labels)):
                yield pod

    def peer_namespaces(self, policy: Policy, peer: PolicyPeer) -> tuple[str, ...]:
        """The namespaces in which a peer means pods; `peer` has a namespaceSelector of one of the policies."""
        if isinstance(policy, RomanaPolicy):
            return tuple(self.pods)
        if peer.namespaces is None:
            return (policy.namespace,)
        return self.selected_namespaces[peer.namespaces]

    def pods_in(self, namespaces: Iterable[str]) -> Iterator[Pod]:
        """The pods of these namespaces."""
        for namespace in namespaces:
            yield from self.pods.get(namespace, ())


def _policy_object(
    item: DecodedObject, policy: Policy, pods: Mapping[str, tuple[Pod, ...]], cluster: Cluster
) -> PolicyObject:
    selected = tuple(pod for pod in pods.get(policy.namespace, ()) if selects(policy, pod, cluster))
    return PolicyObject(policy, item, selected, frozenset(pod.key for pod in selected))


def _selected_namespaces(
    policies: Iterable[PolicyObject], cluster: Cluster, pods: Iterable[str]
) -> dict[Selector, tuple[str, ...]]:
    """What each namespaceSelector of the policies matches, each evaluated once.

    Only the namespaces that have a label which it requires are compared, so that a selector of one name costs little.
    """
    labels = {name: cluster.namespace_labels(name) for name in sorted({*cluster.namespaces, *pods})}
    by_label: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, own in labels.items():
        for label in own.items():
            by_label[label].append(name)
    peers = (peer for policy in policies for rule in policy.rules() for peer in rule.peers)
    matches: dict[Selector, tuple[str, ...]] = {}
    for selector in dict.fromkeys(peer.namespaces for peer in peers if peer.namespaces is not None):
        required = next((one for one in selector.requirements if one.operator is Operator.IN), None)
        candidates: Iterable[str] = labels
        if required is not None:
            candidates = sorted(name for value in required.values for name in by_label.get((required.key, value), ()))
        matches[selector] = tuple(name for name in candidates if selector.matches(labels[name]))
    return matches


def _distinct_pods(cluster: Cluster) -> dict[str, tuple[Pod, ...]]:
    """For each namespace its pods, one for each set of labels and ports."""
    pods: dict[str, dict[object, Pod]] = defaultdict(dict)
    for pod in cluster.pods.values():
        pods[pod.namespace].setdefault((pod.labels, pod.ports, pod.finished, pod.host_network), pod)
    return {namespace: tuple(distinct.values()) for namespace, distinct in pods.items()}
