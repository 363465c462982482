"""Decodes pods, pod templates, namespaces and nodes, as far as the network needs them.

Sources: Kubernetes core/v1 Pod, Namespace and Node; the Network Plumbing Working Group's specification of the
annotation for further networks of a pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.kube.decode.field_names import CONTAINER, CONTAINER_PORT, POD_SPEC, check_names
from romana_ovs.kube.decode.field_types import check_container, check_pod_spec
from romana_ovs.kube.decode.selectors import MAX_PORT, read_protocol
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.addresses import address_fault
from romana_ovs.model.errors import Severity
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import NAME_LABEL, ContainerPort, Namespace, Node, Pod, Protocol
from romana_ovs.model.syntax import port_name_fault, shown, subdomain_fault

MAX_NUMBERS_PER_NAME = 16
"""Port numbers that one port name may have in a pod: each multiplies the rows of rules with that name."""
_BETA_ISOLATION = "net.beta.kubernetes.io/network-policy"
_NETWORKS = "k8s.v1.cni.cncf.io/networks"
_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodSpec:
    """The spec of a pod (or pod template): the node that it is bound to, its ports, hostNetwork."""

    node: str = ""
    ports: tuple[ContainerPort, ...] = ()
    host_network: bool = False


def read_pod_spec(value: object, path: str, validator: Validator) -> PodSpec:
    """The spec at `path`, as far as it can be read. A spec without containers is only a warning."""
    fields = validator.mapping(value, path)
    node = validator.string(fields.get("nodeName"), f"{path}.nodeName")
    if fault := subdomain_fault(node) if node else "":
        validator.error(f"{path}.nodeName", fault)
    if not validator.sequence(fields.get("containers"), f"{path}.containers"):
        validator.warning(f"{path}.containers", "a pod has at least one container")
    ports = [*_ports(fields.get("containers"), f"{path}.containers", validator)]
    ports += _ports(fields.get("initContainers"), f"{path}.initContainers", validator)
    check_pod_spec(fields, path, validator)
    check_names(fields, POD_SPEC, path, validator)
    host_network = validator.boolean(fields.get("hostNetwork"), f"{path}.hostNetwork")
    return PodSpec(node, tuple(_within_name_limit(ports, path, validator)), host_network)


def _ports(containers: object, path: str, validator: Validator) -> Iterator[ContainerPort]:
    """Ports of containers that keep running: of init containers only those that always restart (sidecars)."""
    for where, container in validator.mappings_in(containers, path):
        check_container(container, where, validator)
        check_names(container, CONTAINER, where, validator)
        keeps_running = path.endswith(".containers") or container.get("restartPolicy") == "Always"
        names: set[str] = set()
        for at, entry in validator.mappings_in(container.get("ports"), f"{where}.ports"):
            port = _port(entry, at, validator)
            if port is None:
                continue
            if port.name and port.name in names:
                validator.error(f"{at}.name", f"port name {shown(port.name)} is given twice in this container")
            names.add(port.name)
            if keeps_running:
                yield port


def _within_name_limit(ports: Iterable[ContainerPort], path: str, validator: Validator) -> Iterator[ContainerPort]:
    """`ports` without those whose name has too many numbers already; no rule by that name admits them."""
    numbers: dict[tuple[str, Protocol], set[int]] = {}
    reported: set[str] = set()
    for port in ports:
        known = numbers.setdefault((port.name, port.protocol), set())
        if not port.name or port.number in known or len(known) < MAX_NUMBERS_PER_NAME:
            known.add(port.number)
            yield port
        elif port.name not in reported:
            reported.add(port.name)
            reason = (
                f"port name {shown(port.name)} stands for more than {MAX_NUMBERS_PER_NAME} ports: the first ones count"
            )
            validator.warning(f"{path}.containers", reason)


def _port(entry: Mapping[str, object], path: str, validator: Validator) -> ContainerPort | None:
    check_names(entry, CONTAINER_PORT, path, validator)
    if entry.get("containerPort") is None:
        validator.error(f"{path}.containerPort", "is required")
    number = validator.integer(entry.get("containerPort"), f"{path}.containerPort", low=1, high=MAX_PORT)
    name = validator.string(entry.get("name"), f"{path}.name")
    if fault := port_name_fault(name) if name else "":
        validator.error(f"{path}.name", fault)
    protocol = read_protocol(entry.get("protocol"), f"{path}.protocol", validator)
    return ContainerPort(number, protocol, name) if number is not None else None


def read_pod(document: Mapping[str, object], pod: Pod, validator: Validator, *, plan: AddressPlan | None = None) -> Pod:
    """`pod` (namespace, name, labels, uid) completed from the spec and status of `document`.

    An address that no pod can have, in general or by the address `plan`, is an error. An address in the status of a
    pod that has finished or uses its node's network is not its own, and is not checked.
    """
    spec = read_pod_spec(document.get("spec"), "spec", validator)
    note_networks(document.get("metadata"), "metadata", validator)
    status = validator.mapping(document.get("status"), "status")
    phase = validator.string(status.get("phase"), "status.phase")
    if phase and phase not in _PHASES:
        validator.error("status.phase", f"{shown(phase)} is none of {', '.join(_PHASES)}")
    return Pod(
        namespace=pod.namespace,
        name=pod.name,
        labels=pod.labels,
        uid=pod.uid,
        node=spec.node,
        ports=spec.ports,
        host_network=spec.host_network,
        has_status=bool(status),
        address=_pod_address(status, validator, own=not spec.host_network and phase not in _FINISHED, plan=plan),
        finished=phase in _FINISHED,
    )


def note_networks(metadata: object, path: str, validator: Validator) -> None:
    """Note that a pod has further networks by Multus, to which NetworkPolicies do not apply."""
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if isinstance(annotations, Mapping) and annotations.get(_NETWORKS):
        reason = "has further networks (Multus): no NetworkPolicy decides there, and their paths are in no answer"
        validator.note(f"{path}.annotations.{_NETWORKS}", reason)


def _pod_address(
    status: Mapping[str, object], validator: Validator, *, own: bool, plan: AddressPlan | None
) -> IPv4Address | None:
    """The pod's IPv4 address: podIP, or the one among podIPs when podIP is of the other family.

    `own`: the pod does not share its node's address, so it must be an address that a pod can have.
    """
    texts = [("status.podIP", status.get("podIP"))]
    texts += [
        (f"{where}.ip", entry.get("ip"))
        for where, entry in validator.mappings_in(status.get("podIPs"), "status.podIPs")
    ]
    parsed = [(path, _address(text, path, validator)) for path, text in texts]
    for path, address in parsed if own else ():
        if address is not None:
            _check_pod_address(address, path, validator, plan)
    first = next((address for _, address in parsed if isinstance(address, IPv4Address)), None)
    only = next(((path, address) for path, address in parsed if isinstance(address, IPv6Address)), None)
    if own and first is None and only is not None:
        reason = f"{only[1]} is IPv6, and the pod has no IPv4 address: it has no network here, and is in no answer"
        validator.not_supported(only[0], reason)
    elif own and first is not None and only is not None:
        validator.note(only[0], "has IPv6 addresses, too: only IPv4 is evaluated, and IPv6 is dropped")
    return first


def _check_pod_address(
    address: IPv4Address | IPv6Address, path: str, validator: Validator, plan: AddressPlan | None = None
) -> None:
    """Record an error for an address that no pod can have."""
    fault = address_fault(address)
    if not fault and plan is not None and isinstance(address, IPv4Address):
        fault = plan.address_fault(address)
    if fault:
        validator.error(path, fault)


def _address(value: object, path: str, validator: Validator) -> IPv4Address | IPv6Address | None:
    text = validator.string(value, path)
    if not text:
        return None
    address = _parse_address(text)
    if address is None:
        validator.error(path, f"{shown(text)} is not an IP address")
    return address


@lru_cache(maxsize=4096)
def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address; None when it is none. A pod's is in its status twice."""
    try:
        return IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        return None


def read_namespace(document: Mapping[str, object], name: str, labels: Labels, validator: Validator) -> Namespace:
    """A namespace, always with the label of its own name, as the API server sets it.

    The annotation by which Kubernetes 1.3 to 1.6 isolated its pods is noted.
    """
    metadata = document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if isinstance(annotations, Mapping) and _BETA_ISOLATION in annotations:
        reason = "has no effect since Kubernetes 1.7; isolate by a NetworkPolicy in it with spec: {podSelector: {}}"
        validator.note(f"metadata.annotations.{_BETA_ISOLATION}", reason, Severity.WARNING)
    return Namespace(name, Labels({**labels, NAME_LABEL: name}))


def read_node(document: Mapping[str, object], name: str, labels: Labels, validator: Validator) -> Node:
    """A node with the IPv4 addresses of its status, InternalIP first; one that no node can have is an error."""
    status = validator.mapping(document.get("status"), "status")
    ranked: list[tuple[int, IPv4Address]] = []
    for where, entry in validator.mappings_in(status.get("addresses"), "status.addresses"):
        kind = validator.string(entry.get("type"), f"{where}.type")
        if kind not in ("InternalIP", "ExternalIP"):
            continue
        address = _address(entry.get("address"), f"{where}.address", validator)
        if address is not None:
            _check_pod_address(address, f"{where}.address", validator)
        if isinstance(address, IPv4Address):
            ranked.append((0 if kind == "InternalIP" else 1, address))
    ordered = [address for _, address in sorted(ranked, key=lambda pair: pair[0])]
    return Node(name, labels, tuple(dict.fromkeys(ordered)))
