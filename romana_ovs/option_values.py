"""Parses the texts of single options (`config.OPTIONS`). Each function raises ValueError with the reason."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

from romana_ovs.model.addresses import network_fault
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.settings import Isolation, TenantSource
from romana_ovs.model.syntax import key_fault, shown, subdomain_fault, value_fault

AUTO = "auto"
"""The value of `datapath` that names none."""
MAX_BITS = 30
"""The maximum of each of the three `..._bits`; the address plan checks their sum."""
MAX_RATE = 1_000_000
"""Connections or fragments a second; ten seconds' worth still fits a meter's burst size."""
MAX_POLICY_SIZE = 10_000_000
"""Peers and ports, or flows, of one namespace."""
MAX_CONNECTIONS = 100_000_000
"""Connections of one tenant on one node; no table is that large."""


def _list(text: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in text.replace("\n", ",").split(",")) if part)


def isolation(text: str) -> Isolation:
    """An isolation level."""
    try:
        return Isolation(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is none of {', '.join(one.value for one in Isolation)}") from error


def datapath(text: str) -> DatapathType | None:
    """A datapath type; None for `AUTO`."""
    if text == AUTO:
        return None
    try:
        return DatapathType(text)
    except ValueError as error:
        names = ", ".join([AUTO, *(one.value for one in DatapathType)])
        raise ValueError(f"{shown(text)} is none of {names}") from error


def tenant_source(text: str) -> tuple[TenantSource, str]:
    """Where tenants are read from, and the label key (else empty)."""
    name, colon, key = (part.strip() for part in text.partition(":"))
    try:
        source = TenantSource(name)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is none of namespace, namespace-label:KEY, pod-label:KEY") from error
    if source is TenantSource.NAMESPACE:
        if colon:
            raise ValueError("namespace takes no label key")
        return source, ""
    if fault := key_fault(key) if key else f"{name} needs a label key, as in {name}:owner":
        raise ValueError(fault)
    return source, key


def tenants(text: str) -> tuple[str, ...]:
    """Tenants, separated by commas."""
    names = _list(text)
    for name in names:
        if fault := value_fault(name):
            raise ValueError(f"tenant {shown(name)}: {fault}")
    return names


def label_keys(text: str) -> tuple[str, ...]:
    """Different label keys, separated by commas."""
    keys = _list(text)
    for key in keys:
        if fault := key_fault(key):
            raise ValueError(fault)
    if len(set(keys)) < len(keys):
        raise ValueError("a label key is given twice")
    return keys


def network(text: str) -> IPv4Network:
    """An IPv4 CIDR without host bits, of addresses that pods can have."""
    if "/" not in text:
        raise ValueError(f"{shown(text)} is not a CIDR such as 10.0.0.0/8")
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is not an IPv4 CIDR without host bits, such as 10.0.0.0/8") from error
    if fault := network_fault(network):
        raise ValueError(fault)
    return network


def service_ranges(text: str) -> tuple[IPv4Network, ...]:
    """IPv4 CIDRs, separated by commas."""
    return tuple(network(part) for part in _list(text))


def _whole(text: str, low: int, high: int, unit: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise ValueError(f"{shown(text)} is not a number of {unit} from {low} to {high}")
    return int(text)


def bits(text: str) -> int:
    """The width of a part of an address."""
    return _whole(text, 1, MAX_BITS, "bits")


def rate(text: str) -> int:
    """Connections a second."""
    return _whole(text, 0, MAX_RATE, "connections a second")


def fragments(text: str) -> int:
    """Fragments a second."""
    return _whole(text, 0, MAX_RATE, "fragments a second")


def connections(text: str) -> int:
    """Connections."""
    return _whole(text, 0, MAX_CONNECTIONS, "connections")


def terms(text: str) -> int:
    """Peers and ports."""
    return _whole(text, 0, MAX_POLICY_SIZE, "peers and ports")


def flows(text: str) -> int:
    """Flows."""
    return _whole(text, 0, MAX_POLICY_SIZE, "flows")


def node_count(text: str) -> int:
    """A number of nodes."""
    return _whole(text, 1, 10_000, "nodes")


def text_or_none(text: str) -> str | None:
    """The text; None for an empty one."""
    return text or None


def node_name(text: str) -> str | None:
    """A node's name; None for an empty text."""
    if text and (fault := subdomain_fault(text)):
        raise ValueError(fault)
    return text or None


def boolean(text: str) -> bool:
    """yes or no."""
    if text not in ("yes", "no"):
        raise ValueError(f"{shown(text)} is neither yes nor no")
    return text == "yes"


def path(text: str) -> Path | None:
    """A path; None for an empty text."""
    return Path(text) if text else None


def remotes(text: str) -> tuple[str, ...]:
    """OVSDB remotes; ovs-vswitchd(8) names the forms."""
    remotes = _list(text)
    if not remotes:
        raise ValueError("has no OVSDB remote")
    for remote in remotes:
        if not remote.startswith(("unix:", "tcp:", "ssl:")):
            raise ValueError(f"{shown(remote)} is no OVSDB remote such as unix:/var/run/openvswitch/db.sock")
    return remotes
