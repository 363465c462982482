"""Hypothesis strategies for whole clusters and packets, shared by every property test.

Small alphabets on purpose: labels, ports and ranges collide often, so that policies do select pods and
near misses are as common as hits. Objects are built directly, the way `kube/` would hand them over.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ICMP, Connection, ConnectionEnd, PortRef, end_of_pod
from romana_ovs.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
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
    PolicyKey,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    Protocol,
    RomanaPolicy,
    RomanaRule,
)
from romana_ovs.model.settings import Isolation, Settings, TenantSource

NAMESPACE_NAMES = ("alpha", "beta", "gamma", "kube-system", "delta")
NODE_NAMES = ("node1", "node2", "node3")
TENANT_LABEL = "owner"
LABEL_VALUES = {
    "app": ("web", "db", ""),
    "tier": ("front", "back"),
    TENANT_LABEL: ("t1", "t2"),
    "env": ("prod", "test"),
}
PORT_NAMES = ("http", "dns")
PORT_NUMBERS = (53, 80, 81, 8080)
RANGES = ((80, 81), (79, 90), (1, 65535), (8080, 8080), (54, 79))
NEAR_PORTS = (1, 52, 53, 54, 79, 80, 81, 82, 90, 91, 8079, 8080, 65535)

POD_BLOCKS = "10.0.0.0/8 10.0.0.0/12 10.0.16.0/20 10.0.32.0/20 10.0.16.64/26 10.0.0.0/16 10.0.16.65/32"
FOREIGN_BLOCKS = "192.168.7.0/24 192.168.7.8/29 10.77.0.0/16"
OUTSIDE_BLOCKS = "203.0.113.0/24 203.0.113.128/25 203.0.113.9/32 0.0.0.0/0 0.0.0.0/1 128.0.0.0/1"
NODE_BLOCKS = "172.16.0.0/24 172.16.0.1/32"
BLOCKS = tuple(
    IPv4Network(text) for blocks in (POD_BLOCKS, FOREIGN_BLOCKS, OUTSIDE_BLOCKS, NODE_BLOCKS) for text in blocks.split()
)

_FOREIGN = "192.168.7.9 192.168.7.10 192.168.7.77 10.77.0.5 10.0.16.65 10.0.32.130 10.0.48.2 192.168.9.1"
FOREIGN_ADDRESSES = tuple(IPv4Address(text) for text in _FOREIGN.split())
"""Addresses that another IPAM gave to pods; some lie inside our own prefix."""
_OUTSIDE = "203.0.113.9 203.0.113.200 8.8.8.8 192.168.7.250 10.255.255.200 198.51.100.1"
OUTSIDE_ADDRESSES = tuple(IPv4Address(text) for text in _OUTSIDE.split())
"""Addresses that no pod of a generated cluster has."""


def node_address(name: str) -> IPv4Address:
    """The address of a generated node."""
    return IPv4Address("172.16.0.0") + int(name.removeprefix("node"))


def labels(**fixed: str) -> st.SearchStrategy[Labels]:
    """Labels over the small alphabet, any subset of keys, with `fixed` on top."""
    some = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in LABEL_VALUES.items()})
    return some.map(lambda items: Labels({**items, **fixed}))


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    """One label requirement of any operator."""
    key = draw(st.sampled_from(sorted(LABEL_VALUES)))
    operator = draw(st.sampled_from(Operator))
    if operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST):
        return Requirement(key, operator)
    values = draw(st.frozensets(st.sampled_from(LABEL_VALUES[key]), min_size=1, max_size=2))
    return Requirement(key, operator, values)


def selectors() -> st.SearchStrategy[Selector]:
    """Pod or namespace selectors: everything, matchLabels, matchExpressions."""
    plain = st.sampled_from(sorted(LABEL_VALUES)).flatmap(
        lambda key: st.sampled_from(LABEL_VALUES[key]).map(lambda value: Selector.of({key: value}))
    )
    expressions = st.lists(requirements(), min_size=1, max_size=2).map(lambda found: Selector(tuple(found)))
    return st.one_of(st.just(EVERYTHING), plain, expressions)


@st.composite
def namespace_selectors(draw: st.DrawFn) -> Selector:
    """Selectors of namespaces: as for pods, or by the name that every namespace has as a label."""
    if draw(st.booleans()):
        return draw(selectors())
    return Selector.of({NAME_LABEL: draw(st.sampled_from(NAMESPACE_NAMES))})


@st.composite
def policy_ports(draw: st.DrawFn) -> PolicyPort:
    """A port entry: a number, a range, a name, or every port of the protocol."""
    protocol = draw(st.sampled_from((Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.SCTP)))
    shape = draw(st.sampled_from(("number", "number", "range", "name", "all")))
    if shape == "number":
        return PolicyPort(protocol, draw(st.sampled_from(PORT_NUMBERS)))
    if shape == "range":
        low, high = draw(st.sampled_from(RANGES))
        return PolicyPort(protocol, low, high)
    if shape == "name":
        return PolicyPort(protocol, draw(st.sampled_from((*PORT_NAMES, "nobody"))))
    return PolicyPort(protocol)


@st.composite
def ip_blocks(draw: st.DrawFn) -> IpBlock:
    """A range that may hold pods, nodes or outside addresses, now and then with exceptions inside it."""
    cidr = draw(st.sampled_from(BLOCKS))
    inside = [block for block in BLOCKS if block != cidr and block.subnet_of(cidr)]
    excepts = draw(st.lists(st.sampled_from(inside), max_size=2, unique=True)) if inside else []
    return IpBlock(cidr, tuple(excepts))


def peers() -> st.SearchStrategy[PolicyPeer]:
    """Every shape of `from`/`to` entry, the invalid empty one included (it matches nothing)."""
    return st.one_of(
        st.builds(PolicyPeer, pods=selectors()),
        st.builds(PolicyPeer, namespaces=namespace_selectors()),
        st.builds(PolicyPeer, pods=selectors(), namespaces=namespace_selectors()),
        st.builds(PolicyPeer, ip_block=ip_blocks()),
        st.just(PolicyPeer()),
    )


def policy_rules() -> st.SearchStrategy[PolicyRule]:
    """Rules of networking.k8s.io policies; empty peers and ports are common."""
    return st.builds(
        PolicyRule,
        peers=st.lists(peers(), max_size=2).map(tuple),
        ports=st.lists(policy_ports(), max_size=2).map(tuple),
    )


def kubernetes_policies(namespace: str, name: str) -> st.SearchStrategy[KubernetesPolicy]:
    """NetworkPolicies of one key; rules may stand in a direction that policyTypes leaves out."""
    rules = st.lists(policy_rules(), max_size=2).map(tuple)
    return st.builds(
        KubernetesPolicy,
        namespace=st.just(namespace),
        name=st.just(name),
        selector=selectors(),
        directions=st.frozensets(st.sampled_from(Direction), min_size=1),
        ingress=rules,
        egress=rules,
    )


def romana_policies(namespace: str, name: str) -> st.SearchStrategy[RomanaPolicy]:
    """Romana policies of one key, with and without the label that names their tenant."""
    rule = st.builds(
        RomanaRule,
        sources=st.lists(selectors(), max_size=2).map(tuple),
        ports=st.lists(policy_ports(), max_size=2).map(tuple),
    )
    return st.builds(
        RomanaPolicy,
        namespace=st.just(namespace),
        name=st.just(name),
        labels=labels(),
        selector=selectors(),
        rules=st.lists(rule, max_size=2).map(tuple),
    )


@st.composite
def policies(draw: st.DrawFn, namespaces: tuple[str, ...]) -> Mapping[PolicyKey, Policy]:
    """None to six policies of both kinds in `namespaces`."""
    found: dict[PolicyKey, Policy] = {}
    for number in range(draw(st.sampled_from((0, 1, 2, 2, 3, 3, 4, 4, 5, 6)))):
        place = draw(st.sampled_from(namespaces)), f"policy{number}"
        kubernetes = kubernetes_policies(*place)
        policy: Policy = draw(st.one_of(kubernetes, kubernetes, romana_policies(*place)))
        found[policy.key] = policy
    return found


@st.composite
def cluster_settings(draw: st.DrawFn) -> Settings:
    """Every isolation level and tenant source, with several ideas of what a tier is."""
    source = draw(st.sampled_from(TenantSource))
    shared = [frozenset[str](), frozenset({"kube-system"}), frozenset({"t1"}), frozenset({"t2", "beta"})]
    return Settings(
        isolation=draw(st.sampled_from(Isolation)),
        tenant_source=source,
        tenant_key="" if source is TenantSource.NAMESPACE else TENANT_LABEL,
        shared_tenants=draw(st.sampled_from(shared)),
        tier_labels=draw(st.sampled_from([("tier",), ("tier", "app"), (), ("env", "tier")])),
    )


_CONTAINER_PORTS = st.lists(
    st.builds(
        ContainerPort,
        number=st.sampled_from(PORT_NUMBERS),
        protocol=st.sampled_from(Protocol),
        name=st.sampled_from(("", *PORT_NAMES)),
    ),
    max_size=3,
).map(tuple)


@st.composite
def pods(draw: st.DrawFn, key: tuple[str, str], nodes: tuple[str, ...], foreign: IPv4Address) -> Pod:
    """A pod of this (namespace, name): mostly ordinary, sometimes finished, hostNetwork, or with a foreign address."""
    node = draw(st.sampled_from(nodes))
    condition = draw(st.sampled_from(("plain",) * 6 + ("foreign", "host", "finished", "addressless")))
    former = draw(st.sampled_from(FOREIGN_ADDRESSES))
    address = {"foreign": foreign, "host": node_address(node), "finished": former}.get(condition)
    return Pod(
        namespace=key[0],
        name=key[1],
        labels=draw(labels()),
        node=node,
        address=address,
        ports=draw(_CONTAINER_PORTS),
        uid=f"{key[0]}-{key[1]}",
        has_status=condition != "plain",
        finished=condition == "finished",
        host_network=condition == "host",
    )


@st.composite
def clusters(draw: st.DrawFn, *, options: st.SearchStrategy[Settings] | None = None) -> Cluster:
    """Small clusters: 1-3 nodes, 2-5 namespaces, 2-8 pods, 0-6 policies; `options` replaces the settings drawn.

    Every pod is bound to a node, its namespace is declared. A finished pod may hold the address of a running one.
    """
    nodes = NODE_NAMES[: draw(st.integers(1, len(NODE_NAMES)))]
    namespaces = NAMESPACE_NAMES[: draw(st.sampled_from((2, 2, 2, 3, 3, 4, 5)))]
    foreign = draw(st.permutations(FOREIGN_ADDRESSES))
    found: dict[PodKey, Pod] = {}
    for number in range(draw(st.integers(2, 8))):
        pod = draw(pods((draw(st.sampled_from(namespaces)), f"pod{number}"), nodes, foreign[number]))
        found[pod.key] = pod
    return Cluster(
        settings=draw(options if options is not None else cluster_settings()),
        namespaces={name: Namespace(name, draw(labels(**{NAME_LABEL: name}))) for name in namespaces},
        nodes={name: Node(name, addresses=(node_address(name),)) for name in nodes},
        pods=found,
        policies=draw(policies(namespaces)),
    )


def addresses_of(cluster: Cluster) -> dict[PodKey, IPv4Address]:
    """An address for every networked pod: the one its status carries, else one made up that hits `POD_BLOCKS`.

    A stand-in for tests that need no allocator; tests of compiled tables use the real one.
    """
    taken = {pod.address for pod in cluster.pods.values() if pod.address is not None}
    found: dict[PodKey, IPv4Address] = {}
    for number, (key, pod) in enumerate(sorted(cluster.pods.items())):
        if not pod.networked:
            continue
        made_up = IPv4Address("10.0.16.65") + (number % 3) * 4096 + number
        while made_up in taken:
            made_up += 64
        found[key] = pod.address if pod.address is not None else made_up
        taken.add(found[key])
    return found


def pod_endpoints(cluster: Cluster) -> list[ConnectionEnd]:
    """The pods that can send or receive, hostNetwork ones as their node."""
    alive = [pod for pod in cluster.pods.values() if pod.networked or (pod.host_network and not pod.finished)]
    return [end_of_pod(pod, cluster) for pod in alive]


def other_endpoints(cluster: Cluster) -> list[ConnectionEnd]:
    """Nodes and outside addresses."""
    nodes = [ConnectionEnd(node=node.name, address=node.addresses[0]) for node in cluster.nodes.values()]
    return nodes + [ConnectionEnd(address=address) for address in OUTSIDE_ADDRESSES]


def port_refs() -> st.SearchStrategy[PortRef]:
    """Ports that policies mention and their neighbours, in every protocol; ICMP and one protocol without ports."""
    numbered = st.builds(PortRef, st.sampled_from(Protocol), st.sampled_from(NEAR_PORTS))
    return st.one_of(numbered, numbered, numbered, st.sampled_from((PortRef(ICMP), PortRef(47))))


@st.composite
def packets(draw: st.DrawFn, cluster: Cluster) -> Connection:
    """Connections in `cluster`: mostly between pods, else between a pod and a node or an outside address."""
    pods = pod_endpoints(cluster) or [ConnectionEnd(address=OUTSIDE_ADDRESSES[0])]
    shape = draw(st.sampled_from(("inside",) * 5 + ("itself", "out", "in")))
    first = draw(st.integers(0, len(pods) - 1))
    source = destination = pods[first]
    if shape == "inside" and len(pods) > 1:
        destination = pods[first - draw(st.integers(1, len(pods) - 1))]
    elif shape == "out":
        destination = draw(st.sampled_from(other_endpoints(cluster)))
    elif shape == "in":
        source = draw(st.sampled_from(other_endpoints(cluster)))
    return Connection(source, destination, draw(port_refs()))
