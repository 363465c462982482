"""Represents Services with their addresses, ports and endpoints, and the ranges of their addresses.

Sources: Kubernetes core/v1 Service and Endpoints, discovery.k8s.io/v1 EndpointSlice, networking.k8s.io/v1 ServiceCIDR.
The network does not translate addresses of Services: a proxy on each node does, before policies see the packet.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import NamedTuple

from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import PodKey, Protocol

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class ServiceCIDR:
    """A ServiceCIDR: the API server gives Services cluster addresses of `ranges`. Those of IPv6 are left out."""

    name: str
    ranges: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service. `target` is the number or name on its pods, `node_port` 0 when it has none."""

    number: int
    protocol: Protocol = Protocol.TCP
    name: str = ""
    target: int | str = 0
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A Service; `selector` is None when its endpoints are not those of pods that it selects.

    `addresses` are its cluster addresses, none when it is headless (`headless`); `external` those by which clients
    outside of the cluster reach it: externalIPs and those of a load balancer. `external_name` is the DNS name of a
    Service of type ExternalName, else empty.
    """

    namespace: str
    name: str
    selector: Selector | None = None
    ports: tuple[ServicePort, ...] = ()
    addresses: tuple[Address, ...] = ()
    external: tuple[Address, ...] = ()
    headless: bool = False
    external_name: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """One port of the endpoints of a Service: the number on the endpoints, by the name of the Service's port."""

    number: int
    protocol: Protocol = Protocol.TCP
    name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a Service: an address, and the pod that has it if that is known (by a targetRef)."""

    address: Address
    pod: PodKey | None = None


@dataclass(frozen=True, slots=True)
class ServiceEndpoints:
    """Endpoints with the same ports: a subset of an Endpoints object, or an EndpointSlice. Only ready ones."""

    namespace: str
    service: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointsObject:
    """An Endpoints or EndpointSlice object: its groups of endpoints."""

    namespace: str
    name: str
    groups: tuple[ServiceEndpoints, ...] = ()


class ServiceBackend(NamedTuple):
    """A backend that is no pod: its address and port."""

    address: IPv4Address
    port: int


class ServiceFrontend(NamedTuple):
    """A cluster address and port of a Service (Cilium: frontend), and those of its backends that are no pods.

    `protocol` is the value of a Protocol. The API server behind the Service `kubernetes` is such a backend, and so are
    pods of a node's network.
    """

    address: IPv4Address
    protocol: str
    port: int
    backends: tuple[ServiceBackend, ...] = ()
