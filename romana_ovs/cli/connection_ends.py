"""Parses the ends of a connection as `verdict` takes them: pods, Services and addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from romana_ovs.cli.addresses import AddressMap
from romana_ovs.kube.snapshot import ClusterSnapshot, LeftOut
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ConnectionEnd, PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.services import EndpointsObject, Service, ServiceEndpoints, ServicePort
from romana_ovs.policy.backends import node_port, selected_pods, service_port

SERVICE_PREFIXES = ("svc/", "service/", "services/")
POD_PREFIXES = ("pod/", "pods/")
_MAX_HINTS = 3


class ServiceName(NamedTuple):
    """A Service by its name; `namespace` is empty when it is not given."""

    namespace: str
    name: str


End = IPv4Address | PodKey | ServiceName
"""What an argument names, before it is looked up."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A Service as the other end of a connection.

    `port` is its port, a port of the pods themselves (headless), or None when the Service has no such port. `subject`
    is the subject of a sentence about the Service, with how it was found. `proxied`: the pods may see another source
    address than the client's.
    """

    service: Service
    port: ServicePort | PortRef | None
    subject: str
    proxied: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    """The Services of a folder with their endpoints."""

    services: tuple[Service, ...]
    endpoints: tuple[ServiceEndpoints, ...]

    @classmethod
    def of(cls, loaded: ClusterSnapshot) -> Services:
        """Those among the valid objects of `loaded`."""
        values = [item.value for item in loaded.objects]
        groups = [group for value in values if isinstance(value, EndpointsObject) for group in value.groups]
        return cls(tuple(value for value in values if isinstance(value, Service)), tuple(groups))

    def named(self, name: ServiceName, option: str) -> Service:
        """The Service of this name. Raises InputError when there is none, or several without a namespace given."""
        matching = [one for one in self.services if one.name == name.name and name.namespace in ("", one.namespace)]
        if len(matching) == 1:
            return matching[0]
        shown = f"{name.namespace}/{name.name}" if name.namespace else name.name
        if matching:
            reason = f"several Services are called {shown}: {' and '.join(sorted(map(str, matching)))}"
            raise InputError.because(reason, field=option)
        hint = _did_you_mean(shown, map(str, self.services))
        raise InputError.because(f"there is no Service {shown}{hint}", field=option)

    def at(self, address: IPv4Address, port: PortRef) -> ServiceTarget | None:
        """The Service with this cluster address or external address; of several, one that has the port."""
        sharing = [one for one in self.services if address in (*one.addresses, *one.external)]
        if not sharing:
            return None
        service = next((one for one in sharing if service_port(one, port) is not None), sharing[0])
        external = address in service.external
        where = "an external address" if external else "the address"
        subject = f"{address} is {where} of Service {service}, which"
        return ServiceTarget(service, service_port(service, port), subject, proxied=external)

    def on_node(self, node: str, port: PortRef) -> ServiceTarget | None:
        """The Service whose node port this is."""
        match = node_port(self.services, port)
        if match is None:
            return None
        subject = f"{port} of node {node} is the node port of Service {match[0]}, which"
        return ServiceTarget(match[0], match[1], subject, proxied=True)

    def target(self, service: Service, port: PortRef) -> ServiceTarget:
        """The Service, asked for by its name. A headless one leads to the ports of its pods themselves."""
        if service.headless:
            return ServiceTarget(
                service, port, f"Service {service} is headless, so its port is that of its pods, and it"
            )
        return ServiceTarget(service, service_port(service, port), f"Service {service}")


def parse_end(text: str, option: str, pods: Iterable[str] = ()) -> End:
    """The address, pod or Service in an argument. Raises InputError, with those of `pods` that may be meant."""
    for prefix in SERVICE_PREFIXES:
        rest = text.removeprefix(prefix).split("/")
        if text.startswith(prefix) and len(rest) == 2 and all(rest):
            return ServiceName(*rest)
    for prefix in POD_PREFIXES:
        if text.startswith(prefix) and text.count("/") == 2:
            text = text.removeprefix(prefix)
    if text.count("/") == 1 and all(text.split("/")):
        return PodKey(text)
    words = text.split(".")
    if len(words) > 2 and words[2] == "svc" and all(words[:2]):
        return ServiceName(words[1], words[0])
    if len(words) > 3 and words[3] == "svc" and all(words[:3]):
        return PodKey(f"{words[2]}/{words[0]}")  # a pod of a headless Service, such as db-0.db.shop.svc
    try:
        address = ip_address(text)
    except ValueError as error:
        kinds = "a pod" if option == "--from" else "a pod or Service"
        reason = f"{text!r} is neither {kinds} (namespace/name) nor an IPv4 address{_namespace_hint(text, pods)}"
        raise InputError.because(reason, field=option) from error
    if isinstance(address, IPv6Address):
        raise InputError.because(f"{address} is IPv6; only IPv4 is evaluated", field=option)
    return address


@dataclass(frozen=True, slots=True)
class EndResolver:
    """Finds pods, nodes, Services and outside addresses by what arguments name; `addresses` None: not needed.

    `left_out` are the workloads without pods, for errors about missing pods.
    """

    cluster: Cluster
    services: Services
    addresses: AddressMap | None
    left_out: tuple[LeftOut, ...] = ()

    def source(self, end: End) -> ConnectionEnd:
        """The client. Raises InputError for a Service, which opens no connections, and for a pod that is missing."""
        service = self._service_of(end, "--from")
        if service is not None:
            pods = ", ".join(sorted(pod.key for pod in selected_pods(service, self.cluster))[:_MAX_HINTS])
            reason = f"Service {service} opens no connections; name one of its pods{': ' if pods else ''}{pods}"
            raise InputError.because(reason, field="--from")
        return self._plain(end, "--from")

    def destination(self, end: End, port: PortRef) -> ConnectionEnd | ServiceTarget:
        """The server: a pod before a Service of the same name. Raises InputError when there is none."""
        if isinstance(end, IPv4Address):
            target = self.services.at(end, port)
            if target is not None:
                return target
            plain = self._plain(end, "--to")
            return (self.services.on_node(plain.node, port) if plain.node else None) or plain
        service = self._service_of(end, "--to")
        return self.services.target(service, port) if service is not None else self._plain(end, "--to")

    def namesake(self, end: End) -> Service | None:
        """The Service with the name of a pod that an argument names."""
        if isinstance(end, ServiceName | IPv4Address) or end not in self.cluster.pods:
            return None
        return next((one for one in self.services.services if str(one) == end), None)

    def _service_of(self, end: End, option: str) -> Service | None:
        """The Service that an argument names without doubt; None when it may name a pod."""
        if isinstance(end, ServiceName):
            return self.services.named(end, option)
        if isinstance(end, IPv4Address):
            return next((one for one in self.services.services if end in (*one.addresses, *one.external)), None)
        if end in self.cluster.pods:
            return None
        if end.startswith(SERVICE_PREFIXES):
            return self.services.named(ServiceName("", end.partition("/")[2]), option)
        return next((one for one in self.services.services if str(one) == end), None)

    def _plain(self, end: End, option: str) -> ConnectionEnd:
        """A pod, node or outside address."""
        if isinstance(end, IPv4Address):
            known = self.addresses
            return known.end_at(end, self.cluster) if known is not None else ConnectionEnd(address=end)
        if end not in self.cluster.pods:
            names = [*self.cluster.pods, *(map(str, self.services.services) if option == "--to" else ())]
            hint = _left_out_hint(str(end), self.left_out) or _did_you_mean(str(end), names)
            reason = f"there is no pod {end}{hint}"
            raise InputError.because(reason, field=option)
        return ConnectionEnd(pod=PodKey(str(end)))


def _left_out_hint(name: str, left_out: Iterable[LeftOut]) -> str:
    """Why the workload to which a pod of this name would belong has no pods, or nothing."""
    for one in left_out:
        if one.name and (name == one.name or name.startswith(f"{one.name}-")):
            return f"; {one.kind} {one.name} {one.reason}"
    return ""


def _namespace_hint(name: str, pods: Iterable[str]) -> str:
    """A hint with the pods of this name, or of a workload of this name, in any namespace, or nothing."""
    keys = sorted(pods)
    named = [key for key in keys if key.partition("/")[2] == name]
    made = [key for key in keys if name and key.partition("/")[2].startswith(f"{name}-")]
    hints = (named or made)[:_MAX_HINTS]
    return f"; did you mean {' or '.join(hints)}?" if hints else ""


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with similar names, or nothing."""
    from difflib import get_close_matches

    names = sorted(set(known))
    same_name = [one for one in names if one.partition("/")[2] == name.partition("/")[2]]
    similar = dict.fromkeys([*same_name, *get_close_matches(name, names, n=_MAX_HINTS)])
    hints = list(similar)[:_MAX_HINTS]
    return f"; did you mean {' or '.join(hints)}?" if hints else ""
