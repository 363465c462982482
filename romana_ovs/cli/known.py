"""The addresses of pods and nodes for offline commands: allocated as the emulation does, afresh or from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Endpoint, endpoint_at
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey


def saved_state(path: Path | None) -> dict[str, Any] | None:
    """What a `--state` file holds; None without one. Raises InputError when it cannot be used."""
    if path is None:
        return None
    from romana_ovs.state import StateFile

    found = StateFile(path).load()
    if found is None:
        raise InputError.because("there is no state file", file=str(path))
    return found


@dataclass(frozen=True, slots=True)
class Known:
    """Addresses of the pods that have one of their own, and which node has which address towards its pods."""

    pods: Mapping[PodKey, IPv4Address]
    gateways: Mapping[IPv4Address, str]

    @classmethod
    def of(cls, cluster: Cluster, state: Mapping[str, Any] | None) -> Known:
        """The addresses in `cluster`, with the numbers of `state` (of `saved_state`) if there is any.

        Raises AddressError when the plan cannot fit, InputError when the state cannot be used.
        """
        # Few folders need addresses, and the allocator takes its time to import.
        from romana_ovs.engine import offline

        world, _ = offline(cluster, state)
        pods = {key: address for key in cluster.pods if (address := world.address_of(key)) is not None}
        return cls(pods, {world.plan.gateway(number): node for node, number in world.registry.hosts.items()})

    def endpoint_at(self, address: IPv4Address, cluster: Cluster) -> Endpoint:
        """The pod or node that has `address`, else an outside address."""
        node = self.gateways.get(address)
        return Endpoint(node=node, address=address) if node is not None else endpoint_at(address, cluster, self.pods)
