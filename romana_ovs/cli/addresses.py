"""Allocates the addresses of pods and nodes for offline commands: anew, or from a state file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ConnectionEnd, end_at
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey


def saved_state(path: Path | None) -> dict[str, Any] | None:
    """The content of a `--state` file; None without one. Raises InputError when it cannot be used."""
    if path is None:
        return None
    from romana_ovs.state import StateFile

    state = StateFile(path).load()
    if state is None:
        raise InputError.because("there is no state file", file=str(path))
    return state


@dataclass(frozen=True, slots=True)
class AddressMap:
    """The addresses of pods, and the nodes by their gateway addresses."""

    pods: Mapping[PodKey, IPv4Address]
    gateways: Mapping[IPv4Address, str]

    @classmethod
    def of(cls, cluster: Cluster, state: Mapping[str, Any] | None) -> AddressMap:
        """The addresses in `cluster`, with the saved allocations `state` (of `saved_state`) if given.

        Raises AddressError when the address plan is invalid, InputError when the state cannot be used.
        """
        # Imported here: few manifest directories need addresses, and the allocator is slow to import.
        from romana_ovs.engine import offline

        engine, _ = offline(cluster, state)
        pods = {key: address for key in cluster.pods if (address := engine.agents.address_of(key)) is not None}
        return cls(pods, {engine.plan.gateway(number): node for node, number in engine.hosts.items()})

    def end_at(self, address: IPv4Address, cluster: Cluster) -> ConnectionEnd:
        """The pod or node with this address, else an endpoint outside of the cluster."""
        node = self.gateways.get(address)
        return ConnectionEnd(node=node, address=address) if node is not None else end_at(address, cluster, self.pods)
