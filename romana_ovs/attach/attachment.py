"""Defines attachments of pods to the bridge, their ports, and the state of the bridge, as frozen values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from types import MappingProxyType

from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.node_network import NodeNetwork
from romana_ovs.model.objects import PodKey

DEVICE_PREFIX = "rp"
_HASH_DIGITS, _NONCE_DIGITS = 8, 5
"""With the prefix they make the 15 characters that Linux takes for the name of a device."""
_DEVICE = re.compile(f"{DEVICE_PREFIX}[0-9a-f]{{{_HASH_DIGITS + _NONCE_DIGITS}}}")
MAX_NONCE = 16**_NONCE_DIGITS


@dataclass(frozen=True, slots=True, order=True)
class Attachment:
    """What the CNI specification identifies an attachment by: CNI_CONTAINERID and CNI_IFNAME."""

    container: str
    ifname: str


@dataclass(frozen=True, slots=True)
class SandboxPort:
    """A port of the bridge with its columns in OVSDB. `mark` and `problem` are what the controller notes there.

    `attachment` is None for a port that another program made. `error` is why ovs-vswitchd cannot use the device.
    """

    name: str
    pod: PodKey
    uid: str = ""
    attachment: Attachment | None = None
    netns: str = ""
    mark: str = ""
    problem: str = ""
    error: str = ""

    @property
    def programmed_address(self) -> IPv4Address | None:
        """The pod's address if the controller has noted that this port is programmed for this pod, else None."""
        name, address, uid = (*self.mark.split(), "", "", "")[:3]
        if name != self.pod or (self.uid and uid != self.uid):
            return None
        try:
            return IPv4Address(address)
        except AddressValueError:
            return None


@dataclass(frozen=True, slots=True)
class BridgeState:
    """The bridge as its database last reported it. `connected`: this process to the database; `controlled`: the bridge
    to its controller. `ports` are those of pods, by name. `node_network` is None until the controller has written it;
    `hwaddr` (the MAC of the gateway) and `gateway_mtu` are as the database asks for them, empty and None by default.
    `tunnel_ports` are the UDP ports of the bridge's tunnels; `switch_devices` are devices of the kernel that belong
    to a userspace bridge, beside those of pods.
    """

    connected: bool = False
    exists: bool = False
    controlled: bool = False
    secure: bool = False
    datapath: DatapathType = DatapathType.SYSTEM
    ports: Mapping[str, SandboxPort] = field(default_factory=lambda: MappingProxyType({}))
    node_network: NodeNetwork | None = None
    hwaddr: str = ""
    gateway_mtu: int | None = None
    tunnel_ports: frozenset[int] = frozenset()
    switch_devices: frozenset[str] = frozenset()

    def of(self, attachment: Attachment) -> tuple[SandboxPort, ...]:
        """The ports of an attachment."""
        return tuple(port for port in self.ports.values() if port.attachment == attachment)


def device_stem(attachment: Attachment) -> str:
    """What the names of all devices of an attachment begin with."""
    text = f"{attachment.container}/{attachment.ifname}"
    return DEVICE_PREFIX + hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def device_name(attachment: Attachment, nonce: int) -> str:
    """The name of a device on the node's side. With another `nonce` it is another name.

    A name must not be used twice: a new device of an old name would get the row in OVSDB of the old one.
    """
    return f"{device_stem(attachment)}{nonce % MAX_NONCE:0{_NONCE_DIGITS}x}"


def is_device_name(name: str) -> bool:
    """Whether `device_name` gives such names."""
    return _DEVICE.fullmatch(name) is not None


def not_ready(state: BridgeState, bridge: str) -> str:
    """Why the bridge can take no pods, in a sentence; empty when it can."""
    if not state.connected:
        return "the database of Open vSwitch cannot be reached"
    if not state.exists:
        return f"Open vSwitch has no bridge {bridge}"
    if not state.secure:
        return f"bridge {bridge} is not fail_mode=secure (ovs-vsctl set-fail-mode {bridge} secure)"
    if not state.controlled:
        return f"bridge {bridge} is not connected to its controller (romana-ovs controller)"
    return ""


def why_not_programmed(state: BridgeState, bridge: str, port: SandboxPort) -> str:
    """Why a port is not programmed yet, in a sentence that kubelet can show."""
    if reason := not_ready(state, bridge):
        return reason
    if port.error:
        return f"ovs-vswitchd cannot use the device: {port.error}"
    return port.problem or f"the controller has not programmed the port of pod {port.pod} yet"


def second_interface(state: BridgeState, port: SandboxPort) -> str:
    """The device by which the sandbox of `port` has its pod's address already; empty when it has none."""
    mine = port.attachment
    for other in state.ports.values():
        theirs = other.attachment
        if mine and theirs and other.pod == port.pod and theirs.container == mine.container and theirs != mine:
            return theirs.ifname
    return ""


def invalid_attachments(state: BridgeState, valid: frozenset[Attachment]) -> tuple[Attachment, ...]:
    """The attachments that are not among the valid ones, sorted. Ports that others made are left alone."""
    present = {port.attachment for port in state.ports.values() if port.attachment is not None}
    return tuple(sorted(present - valid))


def without_row(devices: Iterable[str], state: BridgeState, in_progress: Iterable[str]) -> tuple[str, ...]:
    """The devices of ours that have no port and that no ADD is making: remains of a killed agent."""
    kept = {*state.ports, *in_progress}
    return tuple(name for name in devices if is_device_name(name) and name not in kept)
