"""Makes the results of ADD, and compares a pod's device with the result that a CHECK gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from romana_ovs.attach.attachment import SandboxPort

VERSION = "1.1.0"
"""Of the results here; the plugin converts them to the version that its configuration asks for."""
NEXT_HOP = IPv4Address("169.254.1.1")
"""The next hop of pods: a link-local address (RFC 3927), which nobody has."""
DEFAULT = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class PodDevice:
    """The device inside a pod's network namespace: what of it a result mentions."""

    mac: str
    up: bool
    addresses: frozenset[str]
    """With prefix length, as `10.0.64.1/32`."""
    default_via: frozenset[str]
    """The next hops of default routes by this device."""


def mac_of(address: IPv4Address) -> str:
    """The MAC of the pod with an address: `0a:58` and the bits of the address, by which the bridge answers ARP."""
    return "0a:58:" + address.packed.hex(":")


def result(port: SandboxPort, address: IPv4Address, mtu: int, previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """The result of an ADD, after what an earlier plugin of the chain has done."""
    before = previous or {}
    interfaces = list(before.get("interfaces") or ())
    attachment = port.attachment
    ifname = attachment.ifname if attachment is not None else ""
    return {
        **before,
        "cniVersion": VERSION,
        "interfaces": [
            *interfaces,
            {"name": port.name, "mtu": mtu},
            {"name": ifname, "mac": mac_of(address), "mtu": mtu, "sandbox": port.netns},
        ],
        "ips": [
            *(before.get("ips") or ()),
            {"address": f"{address}/32", "gateway": str(NEXT_HOP), "interface": len(interfaces) + 1},
        ],
        "routes": [*(before.get("routes") or ()), {"dst": DEFAULT, "gw": str(NEXT_HOP)}],
    }


def differences(previous: Mapping[str, Any], port: SandboxPort, device: PodDevice) -> Iterator[str]:
    """Sentences about what is not as in `previous`, the result of ADD. What others have added there is not ours."""
    ifname = port.attachment.ifname if port.attachment is not None else ""
    interfaces = previous.get("interfaces") or []
    index = next(
        (
            number
            for number, each in enumerate(interfaces)
            if each.get("name") == ifname and each.get("sandbox") == port.netns
        ),
        None,
    )
    if index is None:
        yield f"prevResult has no interface {ifname} in {port.netns}"
        return
    if not device.up:
        yield f"{ifname} is down"
    expected_mac = interfaces[index].get("mac") or device.mac
    if expected_mac.lower() != device.mac:
        yield f"{ifname} has the MAC {device.mac}, and prevResult {expected_mac}"
    addresses = [str(each.get("address")) for each in previous.get("ips") or [] if each.get("interface") == index]
    for address in addresses:
        if address not in device.addresses:
            yield f"{ifname} lacks the address {address}"
    programmed = port.programmed_address
    if programmed is None or f"{programmed}/32" not in addresses:
        yield f"the controller has programmed {programmed or 'no address'} for port {port.name}"
    routes = [each for each in previous.get("routes") or [] if each.get("dst") == DEFAULT]
    if any(each.get("gw") == str(NEXT_HOP) for each in routes) and str(NEXT_HOP) not in device.default_via:
        yield f"the default route by {NEXT_HOP} is missing"
