"""Builds pods, policies and clusters as model objects, in a few words, and decides about two ends of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef, end_at, end_of_pod
from romana_ovs.model.labels import NO_LABELS, Labels, Operator, Requirement, Selector
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
    Policy,
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
DEFAULTS = Settings()
TINY = Settings(network=IPv4Network("10.9.0.0/24"), segment_bits=4, host_bits=2, endpoint_bits=2)
"""15 segment indexes for tenants, 4 hosts, 4 endpoints each."""
ANY = Selector()
NODES = ("node1", "node2", "node3")
UNDERLAY = IPv4Address("172.16.0.0")


def pod(
    key: str,
    node: str = "node1",
    *,
    address: str = "",
    ports: str = "",
    uid: str = "1",
    finished: bool = False,
    host_network: bool = False,
    has_status: bool | None = None,
    labels: Mapping[str, object] = NO_LABELS,
    **words: object,
) -> Pod:
    """A pod `namespace/name`, or `name` in namespace `ns`; `ports` are such as `http=80/tcp 53/udp`.

    `words` are more labels. Its address is one that this controller has to allocate, unless `address` is given.
    """
    space, name = _split(key)
    return Pod(
        space,
        name,
        labels=Labels({label: str(value) for label, value in {**labels, **words}.items()}),
        node=node,
        address=IPv4Address(address) if address else None,
        ports=tuple(_container_port(text) for text in ports.split()),
        uid=uid,
        has_status=bool(address) if has_status is None else has_status,
        finished=finished,
        host_network=host_network,
    )


def cluster(
    *objects: Pod | Policy | Namespace | Node, settings: Settings = DEFAULTS, nodes: Iterable[str] = NODES
) -> Cluster:
    """A cluster of these objects, with `nodes` and every namespace that a pod or a policy is in."""
    spaces = {each.namespace for each in objects if isinstance(each, Pod | Policy)}
    named = (*map(namespace, spaces), *(each for each in objects if isinstance(each, Namespace)))
    numbered = (Node(name, addresses=(UNDERLAY + number,)) for number, name in enumerate(nodes, 1))
    return Cluster(
        settings=settings,
        namespaces={each.name: each for each in named},
        nodes={each.name: each for each in (*numbered, *(each for each in objects if isinstance(each, Node)))},
        pods={each.key: each for each in objects if isinstance(each, Pod)},
        policies={each.key: each for each in objects if isinstance(each, Policy)},
    )


def plain_cluster(*objects: Pod | Policy | Namespace | Node) -> Cluster:
    """A cluster of plain Kubernetes: neither tenants nor tiers decide."""
    return cluster(*objects, settings=PLAIN)


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
    space, name = _split(key)
    outgoing = tuple(egress)
    if directions is None:
        directions = {INGRESS, EGRESS} if outgoing else {INGRESS}
    return KubernetesPolicy(space, name, selector, frozenset(directions), tuple(ingress), outgoing)


def romana(key: str, selector: Selector, *rules: RomanaRule, **labels: str) -> RomanaPolicy:
    """A Romana policy with these labels of its own."""
    space, name = _split(key)
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


def _split(key: str) -> tuple[str, str]:
    """Namespace (`ns` if there is none in `key`) and name."""
    space, _, name = key.rpartition("/")
    return space or "ns", name


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
    "ANY", "DEFAULTS", "EGRESS", "INGRESS", "NODES", "SCTP", "TCP", "TINY", "UDP", "addresses", "block", "cluster",
    "namespace", "passes", "plain_cluster", "pod", "pod_label", "pods", "policy", "policy_ports", "reached", "romana",
    "rule", "verdict", "where",
]  # fmt: skip
