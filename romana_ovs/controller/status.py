"""What the status feed says of everything, as plain values of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from romana_ovs.controller.following import Following
from romana_ovs.controller.session import Session
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge

_NO_FLOWS = {"policy": 0, "forwarding": 0, "total": 0}


def pods_status(cluster: Cluster, world: Following, bridges: Mapping[str, Bridge]) -> dict[str, dict[str, Any]]:
    """Every pod that has an address, from the moment it has one; `port` is None until its port is there."""
    found: dict[str, dict[str, Any]] = {}
    for key in sorted(cluster.pods):
        address, node = world.address_of(key), world.node_of(key)
        if address is None or node is None:
            continue
        port = bridges[node].facts.pods.get(key) if node in bridges else None
        mac = port.mac if port is not None and port.mac is not None else world.mac_of(key)
        ofport = port.ofport if port is not None else None
        found[key] = {"node": node, "address": str(address), "mac": mac, "port": ofport}
    return found


def nodes_status(
    cluster: Cluster, world: Following, bridges: Mapping[str, Bridge], sessions: Mapping[str, Session],
    full: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Any]]:
    """Every node of the cluster or with a bridge. A change that takes more rounds is not synced yet.

    `full` are, by node, the tenants that have as many connections as they may have.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({*cluster.nodes, *bridges}):
        session = sessions.get(name)
        synced = session.synced if session is not None else None
        host = world.host_number(name)
        found[name] = {
            "connected": session is not None,
            "state": session.state.value if session is not None else "disconnected",
            "synced_generation": None if synced is None else synced.generation - int(world.pending),
            "flows": synced.program.counts() if synced is not None else _NO_FLOWS,
            "packet_ins": session.channel.packets_in if session is not None else 0,
            "sctp_ports": session.sctp_ports if session is not None else None,
            "full": list(full.get(name, ())),
            "address": str(world.plan.gateway(host)) if host is not None else "",
        }
    return found


def displaced(cluster: Cluster, bridges: Mapping[str, Bridge]) -> dict[PodKey, str]:
    """The node where the port of a pod is, for every pod whose own node has no port of it."""
    return {
        key: node
        for node, bridge in sorted(bridges.items(), reverse=True)
        for key in bridge.facts.pods
        if (pod := cluster.pods.get(key)) is not None
        and pod.node != node
        and (pod.node not in bridges or key not in bridges[pod.node].facts.pods)
    }


def strangers(cluster: Cluster, world: Following, bridges: Iterable[Bridge]) -> dict[tuple[str, PodKey], str]:
    """A sentence for every port whose pod is unknown, has no address, or belongs elsewhere: nothing passes it."""
    found: dict[tuple[str, PodKey], str] = {}
    for bridge in bridges:
        for key in bridge.facts.pods:
            home = world.node_of(key)
            if home == bridge.node:
                continue
            if home is not None:
                why = f"which belongs on node {home}"
            else:
                why = "which has no address" if key in cluster.pods else "and there is no such pod"
            found[bridge.node, key] = (
                f"bridge {bridge.name} of node {bridge.node}: a port claims pod {key}, {why}; nothing passes it"
            )
    return found
