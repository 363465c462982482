"""A few words to write small clusters with, for tests of what policies mean."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef, end_at, end_of_pod
from romana_ovs.model.labels import Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    ContainerPort,
    Direction,
    IpBlock,
    KubernetesPolicy,
    Namespace,
    Node,
    Pod,
    PodKey,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    Protocol,
    RomanaPolicy,
    RomanaRule,
)
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.evaluate import Decision, allowed, decide

TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP
INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
PLAIN = Settings(isolation=Isolation.NONE)
"""Plain Kubernetes: neither tenants nor tiers decide."""
ANY = Selector()
NODES = (
    Node("n1", addresses=(IPv4Address("172.16.0.1"),)),
    Node("n2", addresses=(IPv4Address("172.16.0.2"),)),
)


def pod(key: str, address: str = "", **more: object) -> Pod:
    """A pod `namespace/name` on node n1; keywords that Pod does not know are labels, `ports` are `name=80/tcp`."""
    namespace, name = key.split("/")
    ports = tuple(_container_port(text) for text in str(more.pop("ports", "")).split())
    known = {field: more.pop(field) for field in ("node", "finished", "host_network", "has_status") if field in more}
    return Pod(
        namespace,
        name,
        labels=Labels({label: str(value) for label, value in more.items()}),
        address=IPv4Address(address) if address else None,
        ports=ports,
        node=str(known.get("node", "n1")),
        finished=bool(known.get("finished")),
        host_network=bool(known.get("host_network")),
        has_status=bool(known.get("has_status", address)),
    )


def cluster(*items: Pod | KubernetesPolicy | RomanaPolicy | Namespace, settings: Settings = PLAIN) -> Cluster:
    """A cluster of these objects, two nodes, and every namespace that a pod is in."""
    found = Cluster(settings)
    for item in NODES + items:
        found = found.with_object(item)
    for each in items:
        if isinstance(each, Pod) and each.namespace not in found.namespaces:
            found = found.with_object(namespace(each.namespace))
    return found


def namespace(name: str, **labels: str) -> Namespace:
    """A namespace with these labels and its own name's."""
    return Namespace(name, Labels({**labels, NAME_LABEL: name}))


def policy(
    key: str,
    selector: Selector = ANY,
    *,
    ingress: Iterable[PolicyRule] = (),
    egress: Iterable[PolicyRule] = (),
    directions: Iterable[Direction] | None = None,
) -> KubernetesPolicy:
    """A NetworkPolicy; `directions` defaults as the API server does it: Ingress, and Egress if there are rules."""
    space, name = key.split("/")
    outgoing = tuple(egress)
    if directions is None:
        directions = {INGRESS, EGRESS} if outgoing else {INGRESS}
    return KubernetesPolicy(space, name, selector, frozenset(directions), tuple(ingress), outgoing)


def romana(key: str, selector: Selector, *rules: RomanaRule, **labels: str) -> RomanaPolicy:
    """A Romana policy with these labels of its own."""
    space, name = key.split("/")
    return RomanaPolicy(space, name, Labels(labels), selector, rules)


def rule(*peers: PolicyPeer, ports: str = "") -> PolicyRule:
    """A rule; `ports` such as `80/tcp 80-90/udp http/tcp */sctp`."""
    return PolicyRule(peers, policy_ports(ports))


def pods(**labels: str) -> PolicyPeer:
    """A peer with a podSelector alone."""
    return PolicyPeer(pods=Selector.of(labels))


def block(cidr: str, *excepts: str) -> PolicyPeer:
    """An ipBlock; host bits of `cidr` are masked off as the loader does."""
    return PolicyPeer(ip_block=IpBlock(IPv4Network(cidr, strict=False), tuple(IPv4Network(each) for each in excepts)))


def where(key: str, operator: str, *values: str) -> Selector:
    """A selector of one matchExpression."""
    return Selector((Requirement(key, Operator(operator), frozenset(values)),))


def policy_ports(text: str) -> tuple[PolicyPort, ...]:
    """Port entries: numbers, ranges, names and `*`, each with its protocol."""
    return tuple(_policy_port(word) for word in text.split())


def addresses(found: Cluster) -> dict[PodKey, IPv4Address]:
    """Addresses of the pods that have one of their own: what their status says, else 10.0.0.1 and on."""
    networked = [each for _, each in sorted(found.pods.items()) if each.networked]
    made_up = {each.key: IPv4Address("10.0.0.1") + number for number, each in enumerate(networked)}
    return {each.key: each.address or made_up[each.key] for each in networked}


def verdict(found: Cluster, source: str, destination: str, port: str = "80/tcp") -> Decision:
    """The decision about two ends: `namespace/pod`, a node's name, or an address."""
    connection = Connection(_end(found, source), _end(found, destination), PortRef.parse(port))
    decision = decide(found, addresses(found), connection)
    assert decision.allowed == allowed(found, addresses(found), connection)
    return decision


def passes(found: Cluster, source: str, destination: str, port: str = "80/tcp") -> bool:
    """Whether the connection is allowed."""
    return verdict(found, source, destination, port).allowed


def reached(found: Cluster, source: str, destination: str, *ports: str) -> str:
    """Those of `ports` that are allowed, joined by spaces."""
    return " ".join(port for port in ports if passes(found, source, destination, port))


def pod_label(key: str = "owner", isolation: Isolation = Isolation.TIER) -> Settings:
    """The demonstration's settings."""
    return Settings(isolation=isolation, tenant_source=TenantSource.POD_LABEL, tenant_key=key)


def _end(found: Cluster, text: str) -> ConnectionEnd:
    if "/" in text:
        known = found.pods.get(PodKey(text))
        return end_of_pod(known, found) if known is not None and not known.finished else ConnectionEnd(pod=PodKey(text))
    if text in found.nodes:
        return ConnectionEnd(node=text, address=found.nodes[text].addresses[0])
    return end_at(IPv4Address(text), found, addresses(found))


def _container_port(text: str) -> ContainerPort:
    name, _, port = text.rpartition("=")
    ref = PortRef.parse(port)
    return ContainerPort(ref.port or 0, Protocol(ref.protocol), name)


def _policy_port(word: str) -> PolicyPort:
    port, protocol = word.split("/")
    low, _, high = port.partition("-")
    if port == "*":
        return PolicyPort(Protocol(protocol))
    if not low.isdigit():
        return PolicyPort(Protocol(protocol), port)
    return PolicyPort(Protocol(protocol), int(low), int(high) if high else None)


__all__ = [
    "ANY", "EGRESS", "INGRESS", "PLAIN", "SCTP", "TCP", "UDP", "addresses", "block", "cluster",
    "namespace", "passes", "pod", "pod_label", "pods", "policy", "policy_ports", "reached", "romana", "rule",
    "verdict", "where",
]  # fmt: skip
