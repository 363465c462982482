"""Renders the state of nodes and pods for the status socket, as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.model.bridge import PodPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey, same_uid
from romana_ovs.switch.bridges import Bridge

if TYPE_CHECKING:  # It imports Ryu, which the other functions do not need.
    from romana_ovs.controller.session import Session

_NO_FLOWS = {"policy": 0, "forwarding": 0, "total": 0}


def pods_status(cluster: Cluster, agents: NodeAgents, bridges: Mapping[str, Bridge]) -> dict[str, dict[str, Any]]:
    """Every pod that has an address; `port` is None until its port exists."""
    rendered: dict[str, dict[str, Any]] = {}
    for key in sorted(cluster.pods):
        address, node = agents.address_of(key), agents.node_of(key)
        if address is None or node is None:
            continue
        uid = agents.uid_of(key)
        port = bridges[node].facts.port(key, uid) if node in bridges else None
        mac = port.mac if port is not None and port.mac is not None else agents.mac_of(key)
        ofport = port.ofport if port is not None else None
        rendered[key] = {"node": node, "address": str(address), "mac": mac, "port": ofport, "uid": uid}
    return rendered


def nodes_status(
    cluster: Cluster,
    agents: NodeAgents,
    bridges: Mapping[str, Bridge],
    sessions: Mapping[str, Session],
    at_limit: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Any]]:
    """Every node of the cluster, and every other one with a bridge. A change that takes more rounds is not synced yet.

    `at_limit` are, by node, the tenants at their connection limit.
    """
    rendered: dict[str, dict[str, Any]] = {}
    for name in sorted({*cluster.nodes, *bridges}):
        session = sessions.get(name)
        confirmed = session.confirmed if session is not None else None
        host = agents.host_number(name)
        rendered[name] = {
            "connected": session is not None,
            "state": session.state.value if session is not None else "disconnected",
            # While pods or rules wait for numbers another round of the same generation follows.
            "synced_generation": None if confirmed is None else confirmed.generation - int(agents.awaits_registry),
            "flows": confirmed.program.counts() if confirmed is not None else _NO_FLOWS,
            "packet_ins": session.channel.packets_in if session is not None else 0,
            "sctp_ports": session.sctp_ports if session is not None else None,
            "full": list(at_limit.get(name, ())),
            "address": str(agents.plan.gateway(host)) if host is not None else "",
        }
    return rendered


def observed_nodes(cluster: Cluster, bridges: Mapping[str, Bridge]) -> dict[PodKey, str]:
    """The node where the port of a pod is, for every pod whose own node has no port of it."""
    return {
        key: node
        for node, bridge in sorted(bridges.items(), reverse=True)
        for key in bridge.facts.pod_ports
        if (pod := cluster.pods.get(key)) is not None
        and pod.node != node
        and bridge.facts.port(key, pod.uid) is not None
        and (pod.node not in bridges or bridges[pod.node].facts.port(key, pod.uid) is None)
    }


PortClaim = tuple[str, PodKey, str]
"""A port that claims a pod and is not its port: its node, and the name and the UID of the pod that it claims."""


def unclaimed_ports(cluster: Cluster, agents: NodeAgents, bridges: Iterable[Bridge]) -> dict[PortClaim, str]:
    """A sentence for every port that is not that of the pod that it claims: nothing passes it.

    The pod that it claims is unknown, has no address, is on another node, or has another UID or port.
    """
    sentences: dict[PortClaim, str] = {}
    for bridge in bridges:
        for key in bridge.facts.pod_ports:
            home, uid = agents.node_of(key), agents.uid_of(key)
            own_port = bridge.facts.port(key, uid) if home == bridge.node else None
            for port in bridge.facts.ports(key):
                if port is not own_port:
                    pod = f"pod {key}" if not port.uid else f"pod {key} of UID {port.uid}"
                    sentences[bridge.node, key, port.uid] = (
                        f"bridge {bridge.name} of node {bridge.node}: a port claims {pod}, "
                        f"{_why_unclaimed(cluster, key, home, bridge.node, port, uid)}; nothing passes it"
                    )
    return sentences


def port_problems(unclaimed: Mapping[PortClaim, str], problems: Iterable[str], bridge: Bridge) -> dict[PodKey, str]:
    """Why nothing passes the newest port of a pod on `bridge`, by pod: a sentence for whoever attached it.

    `problems` may have the reason why a pod has no address.
    """
    reasons = tuple(problems)
    sentences = {}
    for (node, pod, uid), sentence in unclaimed.items():
        newest = bridge.facts.pod_ports.get(pod)
        if node == bridge.node and newest is not None and newest.uid == uid:
            sentences[pod] = "; ".join([sentence, *(each for each in reasons if each.startswith(f"Pod {pod}: "))])
    return sentences


def _why_unclaimed(cluster: Cluster, key: PodKey, home: str | None, node: str, port: PodPort, uid: str) -> str:
    """Why a port on `node` is not that of the pod `key`, which has its address as `uid` on `home`."""
    if home is None:
        return "which has no address" if key in cluster.pods else "and there is no such pod"
    if not same_uid(port.uid, uid):
        return f"whose UID is {uid}"
    return f"which belongs on node {home}" if home != node else "which has another port"
