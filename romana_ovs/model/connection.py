"""Represents a connection by its two ends and its port; parses and formats ports (`80/tcp`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import Pod, PodKey, Protocol

ICMP = 1
"""The IP protocol number of ICMP (IANA)."""
_ICMP_WORD = "icmp"
_HIGHEST_PORT = 65535
_HIGHEST_PROTOCOL = 255


class PortRef(NamedTuple):
    """A destination port, or a protocol without ports: `port` is None exactly when `protocol` is a number."""

    protocol: Protocol | int
    port: int | None = None

    def __str__(self) -> str:
        """`80/tcp`, `icmp`, or `proto 47`."""
        if isinstance(self.protocol, Protocol):
            return f"{self.port}/{self.protocol.value}"
        return _ICMP_WORD if self.protocol == ICMP else f"proto {self.protocol}"

    @classmethod
    def parse(cls, text: str, *, field: str = "") -> PortRef:
        """The port that `80/tcp`, `80` (TCP), `icmp` or `proto 47` means; raises InputError for anything else.

        `field` is the name of the input in the error.
        """
        words = text.strip().lower()
        if words == _ICMP_WORD:
            return cls(ICMP)
        if words.startswith("proto ") and _is_number(words[6:], 0, _HIGHEST_PROTOCOL):
            number = int(words[6:])
            if number not in {protocol.number for protocol in Protocol}:
                return cls(number)
        port, _, protocol = words.partition("/")
        known = {member.value: member for member in Protocol}
        if _is_number(port, 1, _HIGHEST_PORT) and (protocol or "tcp") in known and not words.endswith("/"):
            return cls(known[protocol or "tcp"], int(port))
        raise InputError.because(
            f"{text!r} is not a port: write a number from 1 to {_HIGHEST_PORT} and tcp, udp or sctp, "
            "such as 80/tcp, or icmp",
            field=field,
        )


@dataclass(frozen=True, slots=True)
class ConnectionEnd:
    """One end of a connection: a pod, a node's own address, or an address outside the cluster.

    `address` is None for a pod, whose address is looked up when needed, and for a node of unknown address.
    """

    pod: PodKey | None = None
    node: str = ""
    address: IPv4Address | None = None

    def __str__(self) -> str:
        if self.pod is not None:
            return self.pod
        where = str(self.address) if self.address is not None else ""
        return f"node {self.node} {where}".rstrip() if self.node else where


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection from `source` to `port` of `destination` (in its original direction)."""

    source: ConnectionEnd
    destination: ConnectionEnd
    port: PortRef

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} {self.port}"


def end_of_pod(pod: Pod, cluster: Cluster) -> ConnectionEnd:
    """The connection end of a pod: itself, or its node when it uses the node's network."""
    if not pod.host_network:
        return ConnectionEnd(pod=pod.key)
    node = cluster.nodes.get(pod.node)
    known = (pod.address,) if pod.address is not None else node.addresses if node is not None else ()
    return ConnectionEnd(node=pod.node, address=known[0] if known else None)


def end_at(address: IPv4Address, cluster: Cluster, addresses: Mapping[PodKey, IPv4Address]) -> ConnectionEnd:
    """The connection end with `address` now: a running pod, a node (also by a hostNetwork pod's address), or outside.

    `addresses` has every pod address; hostNetwork pods are not in it.
    """
    for key, pod_address in addresses.items():
        pod = cluster.pods.get(key)
        if pod_address == address and pod is not None and pod.networked:
            return ConnectionEnd(pod=key)
    for node in cluster.nodes.values():
        if address in node.addresses:
            return ConnectionEnd(node=node.name, address=address)
    for pod in cluster.pods.values():
        if pod.host_network and not pod.finished and pod.address == address:
            return ConnectionEnd(node=pod.node, address=address)
    return ConnectionEnd(address=address)


def _is_number(text: str, low: int, high: int) -> bool:
    return text.isascii() and text.isdigit() and low <= int(text) <= high
