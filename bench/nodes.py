"""Builds one node of a large cluster, and clusters that are hard for its controller."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from types import MappingProxyType

from bench.allocation import large_cluster
from romana_ovs.engine.offline import LOCAL_PORT
from romana_ovs.model.bridge import BridgeFacts, PodPort, TunnelPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    ContainerPort,
    Direction,
    KubernetesPolicy,
    Namespace,
    Pod,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    Protocol,
)
from romana_ovs.model.settings import Isolation

TUNNEL_PORT = 0x7000
GATEWAY_MAC = "02:00:00:00:00:01"
DNS_PODS = 2
"""Cluster DNS pods on the node that every tenant's rules name."""
DNS_NAMESPACE = "kube-system"


def facts_of(cluster: Cluster, node: str) -> BridgeFacts:
    """The bridge of `node` alone: its pods' ports from 1 on, its own port, one tunnel port to all other nodes."""
    local = sorted(key for key, pod in cluster.pods.items() if pod.node == node)
    return BridgeFacts(
        node=node,
        pod_ports=MappingProxyType({key: PodPort(number) for number, key in enumerate(local, start=1)}),
        gateway_port=LOCAL_PORT,
        gateway_mac=GATEWAY_MAC,
        tunnel=TunnelPort(TUNNEL_PORT, _address(cluster, node)),
    )


def _address(cluster: Cluster, node: str) -> IPv4Address:
    return cluster.nodes[node].addresses[0]


def tier_cluster(pods: int) -> Cluster:
    """`large_cluster` with the demonstration's isolation: by tier."""
    base = large_cluster(pods)
    return replace(base, settings=replace(base.settings, isolation=Isolation.TIER))


def dns_cluster(pods: int) -> Cluster:
    """`large_cluster` with cluster DNS on the first node, and in every tenant a policy letting out to it.

    So the tables of the first node hold something of every tenant (docs/dataplane.md, "What grows with what").
    """
    base = large_cluster(pods)
    home = min(base.nodes)
    servers = (_dns_pod(number, home) for number in range(DNS_PODS))
    policies = (_let_out(name) for name in base.namespaces)
    here = Namespace(DNS_NAMESPACE, Labels({NAME_LABEL: DNS_NAMESPACE}))
    return replace(
        base,
        namespaces=MappingProxyType({**base.namespaces, DNS_NAMESPACE: here}),
        pods=MappingProxyType({**base.pods, **{pod.key: pod for pod in servers}}),
        policies=MappingProxyType({**base.policies, **{policy.key: policy for policy in policies}}),
    )


def _dns_pod(number: int, node: str) -> Pod:
    return Pod(
        namespace=DNS_NAMESPACE,
        name=f"dns{number}",
        labels=Labels({"k8s-app": "kube-dns"}),
        node=node,
        ports=(ContainerPort(53, Protocol.UDP), ContainerPort(53)),
        uid=f"dns{number}",
    )


def _let_out(namespace: str) -> KubernetesPolicy:
    dns = PolicyPeer(namespaces=Selector.of({NAME_LABEL: DNS_NAMESPACE}), pods=Selector.of({"k8s-app": "kube-dns"}))
    ports = (PolicyPort(Protocol.UDP, 53), PolicyPort(Protocol.TCP, 53))
    return KubernetesPolicy(
        namespace=namespace,
        name="let-out",
        selector=Selector(),
        directions=frozenset({Direction.EGRESS}),
        egress=(PolicyRule(peers=(dns,), ports=ports), PolicyRule(peers=(PolicyPeer(pods=Selector()),))),
    )
