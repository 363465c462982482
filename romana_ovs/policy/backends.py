"""Resolves a Service to its backends: the pods or addresses that its connections reach, and their ports.

Sources: Kubernetes core/v1 ServiceSpec and https://kubernetes.io/docs/concepts/services-networking/service/. Policies
are about the backend: kube-proxy translates the address of the Service before the packet reaches them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ConnectionEnd, PortRef, end_at
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.services import Endpoint, Service, ServiceEndpoints, ServicePort


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend of a Service with its port; `port` is None when it has no such port, for the reason in `fault`."""

    end: ConnectionEnd
    port: PortRef | None
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.end} {self.port}" if self.port is not None else str(self.end)


def service_port(service: Service, port: PortRef) -> ServicePort | None:
    """The port of `service` with this number and protocol; None when it has none."""
    return next((one for one in service.ports if (one.protocol, one.number) == port), None)


def node_port(services: Iterable[Service], port: PortRef) -> tuple[Service, ServicePort] | None:
    """The Service whose node port this is, and its port."""
    for service in services:
        for one in service.ports:
            if one.node_port and (one.protocol, one.node_port) == port:
                return service, one
    return None


def ports_text(service: Service) -> str:
    """The ports of a Service: `80/tcp (http)`, `443/tcp`."""
    texts = (
        f"{port.number}/{port.protocol.value}" + (f" ({port.name})" if port.name else "") for port in service.ports
    )
    return ", ".join(texts) or "none"


def backends(
    service: Service,
    port: ServicePort | PortRef,
    groups: Iterable[ServiceEndpoints],
    *,
    cluster: Cluster,
    addresses: Mapping[PodKey, IPv4Address],
) -> tuple[Backend, ...]:
    """The backends behind `port` of the Service, sorted; by its selector, or else by `groups` of endpoints.

    A PortRef is a port of the backends themselves: a client of a headless Service connects to them directly.
    """
    if service.selector is not None:
        behind_port = {_of_pod(pod, port) for pod in selected_pods(service, cluster)}
    else:
        own = [group for group in groups if (group.namespace, group.service) == (service.namespace, service.name)]
        behind_port = {one for group in own for one in _of_group(group, port, cluster, addresses)}
    return tuple(sorted(behind_port, key=str))


def selected_pods(service: Service, cluster: Cluster) -> Iterator[Pod]:
    """The pods that have the labels of the Service's selector, and run."""
    if service.selector is None:
        return
    for pod in cluster.pods.values():
        running = pod.networked or (pod.host_network and not pod.finished)
        if pod.namespace == service.namespace and running and service.selector.matches(pod.labels):
            yield pod


def _of_pod(pod: Pod, port: ServicePort | PortRef) -> Backend:
    end = ConnectionEnd(pod=pod.key)
    if isinstance(port, PortRef):
        return Backend(end, port)
    if isinstance(port.target, int):
        return Backend(end, PortRef(port.protocol, port.target))
    for one in pod.ports:
        if (one.name, one.protocol) == (port.target, port.protocol):
            return Backend(end, PortRef(port.protocol, one.number))
    fault = f"{pod.key} declares no port {port.target} of {port.protocol.value}, so it is no endpoint of this port"
    return Backend(end, None, fault)


def _of_group(
    group: ServiceEndpoints,
    port: ServicePort | PortRef,
    cluster: Cluster,
    addresses: Mapping[PodKey, IPv4Address],
) -> Iterator[Backend]:
    if isinstance(port, PortRef):
        numbers = [port]
    else:
        ports = [one for one in group.ports if one.protocol is port.protocol]
        # "name" of an endpoint's port "must match the 'name' field in the corresponding ServicePort".
        numbers = [PortRef(one.protocol, one.number) for one in ports if one.name == port.name]
    for endpoint in group.endpoints:
        end = _end(endpoint, cluster, addresses)
        if end is not None:
            yield from (Backend(end, number) for number in numbers)


def _end(endpoint: Endpoint, cluster: Cluster, addresses: Mapping[PodKey, IPv4Address]) -> ConnectionEnd | None:
    """The pod or address of an endpoint; None when it has only an IPv6 address."""
    if endpoint.pod is not None and endpoint.pod in cluster.pods:
        return ConnectionEnd(pod=endpoint.pod)
    return end_at(endpoint.address, cluster, addresses) if isinstance(endpoint.address, IPv4Address) else None
