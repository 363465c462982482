"""Makes, configures, reads and removes the network devices of pods by netlink, in threads that enter their namespaces.

Sources: setns(2); rtnetlink(7); linux/ethtool.h. pyroute2's own way into a namespace starts a process for each.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from romana_ovs.attach import errors
from romana_ovs.attach.attachment import is_device_name
from romana_ovs.attach.errors import CniError
from romana_ovs.attach.results import NEXT_HOP, PodDevice, mac_of
from romana_ovs.pipeline.registers import NEXT_HOP_MAC

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_OWN_NETNS = "/proc/thread-self/ns/net"
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_NUD_PERMANENT = 0x80
NEXT_HOP_LLADDR = NEXT_HOP_MAC.to_bytes(6, "big").hex(":")
"""The MAC of the next hop, which the bridge also answers to ARP requests."""
_ADDR_GEN_MODE_NONE = 1
_IFF_UP = 1
_LOOPBACK = 1
"""The index of `lo`, in every namespace."""
_WITHOUT_IPV6 = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}]]}
"""No link-local address: the bridge drops IPv6."""


def exists(path: str) -> bool:
    """Whether there is a network namespace at `path`; a file that one was mounted on is none."""
    try:
        return os.stat(path).st_dev == os.stat(_OWN_NETNS).st_dev
    except OSError:
        return False


def make_pair(netns: str, ifname: str, device: str, mtu: int) -> None:
    """Make a veth pair: `ifname` in the namespace, still down, and `device` in this one, up.

    Raises CniError when the namespace is gone, or has such a device.
    """
    descriptor = os.open(_OWN_NETNS, os.O_RDONLY)
    try:
        peer = {"ifname": device, "net_ns_fd": descriptor, "mtu": mtu}
        with netlink_errors(ifname, {errno.EEXIST: errors.INTERFACE_EXISTS}):
            _inside(netns, lambda ip: ip.link("add", ifname=ifname, kind="veth", mtu=mtu, peer=peer))
    finally:
        os.close(descriptor)
    with netlink_errors(device), IPRoute() as ip:
        set_up(ip, _index(ip, device))


def configure(netns: str, ifname: str, address: IPv4Address, *, checksums: bool) -> None:
    """Give the device its MAC, address and default route, and set it up. Raises CniError.

    All is routed by one next hop with a permanent neighbour entry, so that the pod sends no ARP requests.
    `checksums`: whether the pod may leave these to the switch.
    """

    def work(ip: Any) -> None:
        index = _index(ip, ifname)
        if not checksums:
            _turn_off_checksums(ifname)
        ip.link("set", index=_LOOPBACK, state="up")
        ip.link("set", index=index, address=mac_of(address))
        set_up(ip, index)
        ip.addr("replace", index=index, address=str(address), prefixlen=32)
        set_next_hop(ip, index)
        ip.route("replace", dst="default", gateway=str(NEXT_HOP), oif=index, flags=["onlink"], prefsrc=str(address))

    with netlink_errors(ifname):
        _inside(netns, work)


def read(netns: str, ifname: str) -> PodDevice | None:
    """The device in a pod's namespace; None when there is none. Raises CniError when the namespace is gone."""

    def work(ip: Any) -> PodDevice | None:
        links = ip.link_lookup(ifname=ifname)
        if not links:
            return None
        (link,) = ip.get_links(links[0])
        addresses = ip.get_addr(index=links[0], family=socket.AF_INET)
        routes = ip.get_routes(family=socket.AF_INET, oif=links[0])
        return PodDevice(
            link.get_attr("IFLA_ADDRESS"),
            bool(link["flags"] & _IFF_UP),
            frozenset(f"{each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}" for each in addresses),
            frozenset(str(each.get_attr("RTA_GATEWAY")) for each in routes if each["dst_len"] == 0),
        )

    with netlink_errors(ifname):
        return _inside(netns, work)


def uplink_mtu() -> int | None:
    """The MTU of the device with the default route, in bytes; None without one."""
    with netlink_errors("default route"), IPRoute() as ip:
        for route in ip.get_default_routes(family=socket.AF_INET):
            for link in ip.get_links(route.get_attr("RTA_OIF") or 0):
                return int(link.get_attr("IFLA_MTU"))
    return None


def devices() -> tuple[str, ...]:
    """The names of all veth devices of ours in this namespace."""
    with netlink_errors("devices"), IPRoute() as ip:
        names = [link.get_attr("IFLA_IFNAME") for link in ip.get_links(kind="veth")]
    return tuple(name for name in names if is_device_name(name))


def remove(device: str) -> None:
    """Remove a device of this namespace and so its peer; nothing when there is none. Raises CniError."""
    with netlink_errors(device), IPRoute() as ip:
        try:
            for index in ip.link_lookup(ifname=device):
                ip.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


def set_up(ip: Any, index: int) -> None:
    """Set a device up, without IPv6 where the kernel has it."""
    try:
        ip.link("set", index=index, IFLA_AF_SPEC=_WITHOUT_IPV6)
    except NetlinkError as error:
        if error.code not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    ip.link("set", index=index, state="up")


def set_next_hop(ip: Any, index: int) -> None:
    """Give a device the permanent neighbour entry of the next hop."""
    ip.neigh("replace", dst=str(NEXT_HOP), lladdr=NEXT_HOP_LLADDR, ifindex=index, state=_NUD_PERMANENT)


def _index(ip: Any, device: str) -> int:
    links = ip.link_lookup(ifname=device)
    if not links:
        raise NetlinkError(errno.ENODEV, "no such device")
    return int(links[0])


def _turn_off_checksums(device: str) -> None:
    """What `ethtool -K DEVICE tx off` does. Raises OSError."""
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)


def _inside(netns: str, work: Callable[[Any], T]) -> T:
    """What `work` returns for a netlink socket of the namespace at `netns`, in a thread that enters it and ends.

    Raises what it raises, and CniError when there is no such namespace.
    """
    results: list[T] = []
    failures: list[Exception] = []

    def moved() -> None:
        try:
            _enter(netns)
            with IPRoute() as ip:
                results.append(work(ip))
        except (CniError, NetlinkError, OSError) as error:
            failures.append(error)

    thread = threading.Thread(target=moved, name="netns")
    thread.start()
    thread.join()
    if results:
        return results[0]
    raise failures[0] if failures else CniError(errors.INTERNAL, f"{netns}: an internal error, which the log shows")


def _enter(netns: str) -> None:
    """Move this thread into the namespace. Raises CniError."""
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CniError(errors.CONTAINER_UNKNOWN, f"network namespace {netns}: {error.strerror}") from error
    try:
        if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise CniError(errors.CONTAINER_UNKNOWN, f"network namespace {netns} cannot be entered: {reason}")
    finally:
        os.close(descriptor)


@contextmanager
def netlink_errors(device: str, codes: Mapping[int, int] | None = None) -> Iterator[None]:
    """Raise CniError in place of the kernel's errors; `codes` are the CNI's for those with a code of their own."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        number = error.code if isinstance(error, NetlinkError) else error.errno or 0
        code = (codes or {}).get(number, errors.TRY_AGAIN_LATER)
        raise CniError(code, f"device {device}: {os.strerror(number) if number else error}") from error
