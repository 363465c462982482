"""Pods, pod templates, namespaces and nodes, decoded as far as the network cares.

Sources: Kubernetes core/v1 Pod, Namespace and Node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from romana_ovs.addressing.plan import Plan
from romana_ovs.kube.decode.selectors import MAX_PORT, read_protocol
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.addresses import address_fault
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import NAME_LABEL, ContainerPort, Namespace, Node, Pod, Protocol
from romana_ovs.model.syntax import port_name_fault, shown, subdomain_fault

MOST_NUMBERS = 16
"""Numbers that one port name may stand for in a pod: rules that name it are as many times as large."""
_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What a pod's (or a template's) spec decides: the node it is bound to, its ports, hostNetwork."""

    node: str = ""
    ports: tuple[ContainerPort, ...] = ()
    host_network: bool = False


def read_pod_spec(value: object, path: str, notes: Validator) -> PodSpec:
    """The spec at `path`, as far as it can be read. A spec without containers is only doubtful."""
    fields = notes.mapping(value, path)
    node = notes.text(fields.get("nodeName"), f"{path}.nodeName")
    if fault := subdomain_fault(node) if node else "":
        notes.wrong(f"{path}.nodeName", fault)
    if not notes.listing(fields.get("containers"), f"{path}.containers"):
        notes.doubtful(f"{path}.containers", "a pod has at least one container")
    ports = [*_ports(fields.get("containers"), f"{path}.containers", notes)]
    ports += _ports(fields.get("initContainers"), f"{path}.initContainers", notes)
    host_network = notes.flag(fields.get("hostNetwork"), f"{path}.hostNetwork")
    return PodSpec(node, tuple(_named_apart(ports, path, notes)), host_network)


def _ports(containers: object, path: str, notes: Validator) -> Iterator[ContainerPort]:
    """Ports of containers that stay: an init container only counts when it restarts always (a sidecar)."""
    for where, container in notes.entries_of(containers, path):
        stays = path.endswith(".containers") or container.get("restartPolicy") == "Always"
        names: set[str] = set()
        for at, entry in notes.entries_of(container.get("ports"), f"{where}.ports"):
            port = _port(entry, at, notes)
            if port is None:
                continue
            if port.name and port.name in names:
                notes.wrong(f"{at}.name", f"port name {shown(port.name)} is given twice in this container")
            names.add(port.name)
            if stays:
                yield port


def _named_apart(ports: Iterable[ContainerPort], path: str, notes: Validator) -> Iterator[ContainerPort]:
    """`ports` without those that bear a name which stands for too many numbers already: no rule admits these."""
    numbers: dict[tuple[str, Protocol], set[int]] = {}
    told: set[str] = set()
    for port in ports:
        known = numbers.setdefault((port.name, port.protocol), set())
        if not port.name or port.number in known or len(known) < MOST_NUMBERS:
            known.add(port.number)
            yield port
        elif port.name not in told:
            told.add(port.name)
            reason = f"port name {shown(port.name)} stands for more than {MOST_NUMBERS} ports: the first ones count"
            notes.doubtful(f"{path}.containers", reason)


def _port(entry: Mapping[str, object], path: str, notes: Validator) -> ContainerPort | None:
    if entry.get("containerPort") is None:
        notes.wrong(f"{path}.containerPort", "is required")
    number = notes.whole(entry.get("containerPort"), f"{path}.containerPort", low=1, high=MAX_PORT)
    name = notes.text(entry.get("name"), f"{path}.name")
    if fault := port_name_fault(name) if name else "":
        notes.wrong(f"{path}.name", fault)
    protocol = read_protocol(entry.get("protocol"), f"{path}.protocol", notes)
    return ContainerPort(number, protocol, name) if number is not None else None


def read_pod(document: Mapping[str, object], pod: Pod, notes: Validator, *, plan: Plan | None = None) -> Pod:
    """`pod` (namespace, name, labels, uid) completed from the spec and status of `document`.

    An address that no pod can have, by itself or by the address `plan`, is wrong. What stands in the status of a
    pod that has finished, or is on its node's network, is not its own and means nothing.
    """
    spec = read_pod_spec(document.get("spec"), "spec", notes)
    status = notes.mapping(document.get("status"), "status")
    phase = notes.text(status.get("phase"), "status.phase")
    if phase and phase not in _PHASES:
        notes.wrong("status.phase", f"{shown(phase)} is none of {', '.join(_PHASES)}")
    return Pod(
        namespace=pod.namespace,
        name=pod.name,
        labels=pod.labels,
        uid=pod.uid,
        node=spec.node,
        ports=spec.ports,
        host_network=spec.host_network,
        has_status=bool(status),
        address=_pod_address(status, notes, own=not spec.host_network and phase not in _FINISHED, plan=plan),
        finished=phase in _FINISHED,
    )


def _pod_address(status: Mapping[str, object], notes: Validator, *, own: bool, plan: Plan | None) -> IPv4Address | None:
    """The pod's IPv4 address: podIP, or the one among podIPs when podIP is of the other family.

    `own`: it is the pod's own, so it must be one that a pod can have.
    """
    texts = [("status.podIP", status.get("podIP"))]
    texts += [
        (f"{where}.ip", entry.get("ip")) for where, entry in notes.entries_of(status.get("podIPs"), "status.podIPs")
    ]
    found = [(path, _address(text, path, notes)) for path, text in texts]
    for path, address in found if own else ():
        if address is not None:
            _check_own(address, path, notes, plan)
    return next((address for _, address in found if isinstance(address, IPv4Address)), None)


def _check_own(address: IPv4Address | IPv6Address, path: str, notes: Validator, plan: Plan | None = None) -> None:
    """Note an address that nobody can have as his own."""
    fault = address_fault(address)
    if not fault and plan is not None and isinstance(address, IPv4Address):
        fault = plan.address_fault(address)
    if fault:
        notes.wrong(path, fault)


def _address(value: object, path: str, notes: Validator) -> IPv4Address | IPv6Address | None:
    text = notes.text(value, path)
    if not text:
        return None
    try:
        return IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        notes.wrong(path, f"{shown(text)} is not an IP address")
        return None


def read_namespace(name: str, labels: Labels) -> Namespace:
    """A namespace; like the API server, it gets the label of its own name, whatever its manifest says."""
    return Namespace(name, Labels({**labels, NAME_LABEL: name}))


def read_node(document: Mapping[str, object], name: str, labels: Labels, notes: Validator) -> Node:
    """A node with the IPv4 addresses of its status, InternalIP first; one that no node can have is wrong."""
    status = notes.mapping(document.get("status"), "status")
    ranked: list[tuple[int, IPv4Address]] = []
    for where, entry in notes.entries_of(status.get("addresses"), "status.addresses"):
        kind = notes.text(entry.get("type"), f"{where}.type")
        if kind not in ("InternalIP", "ExternalIP"):
            continue
        address = _address(entry.get("address"), f"{where}.address", notes)
        if address is not None:
            _check_own(address, f"{where}.address", notes)
        if isinstance(address, IPv4Address):
            ranked.append((0 if kind == "InternalIP" else 1, address))
    ordered = [address for _, address in sorted(ranked, key=lambda pair: pair[0])]
    return Node(name, labels, tuple(dict.fromkeys(ordered)))
