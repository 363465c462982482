"""Drops frames other than IPv4 and ARP at the port of a pod, before Open vSwitch, by a BPF program of the kernel.

Open vSwitch matches the whole ethertype of every frame, whatever the tables match, so a pod that sends random
ethertypes makes a megaflow for each. The tables drop the same frames, too. Where the program is attached depends on
the datapath (`INGRESS_HOOK`):

- The userspace datapath reads a port by a packet socket, which gets a frame before tc and nftables; XDP comes before
  that. It is the driver's XDP ("native"), not the generic one, which does not see frames that tc has redirected, as
  root in a pod can do. It does not see what the kernel keeps beside a frame, such as the tag of a VLAN interface.
  Linux 5.18 or later is needed.
- The kernel's datapath takes a frame after tc's ingress. There the program sees a frame as Open vSwitch does, with its
  tag wherever that is, and segments up to 64 KB stay in one piece, which XDP prevents.

The program stays attached for the life of the device. libbpf 1.0 or later is needed.

Sources: Documentation/bpf/instruction-set.rst, linux/bpf.h (xdp_md, xdp_action, __sk_buff), linux/pkt_cls.h and
net/core/dev.c of Linux; drivers/net/veth.c.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from romana_ovs.model.bridge import INGRESS_HOOK, DatapathType, IngressHook
from romana_ovs.model.errors import SetupError
from romana_ovs.switch import bpf
from romana_ovs.switch.bpf import Instruction, LibBpf, ProgramType

PROGRAM_NAME = b"ethertypes"
"""The name of the programs in `ip -d link`, `tc filter` and bpftool."""
_XDP_HAS_FRAGS = 1 << 5
"""The program takes frames that are not in one piece; without it veth refuses an MTU above some 3,500 bytes."""
_SIOCETHTOOL = 0x8946
_ETHTOOL_SGRO = 0x2C


class NotFiltered(SetupError):
    """The ports of pods cannot be filtered; the message has the device, if any, and the reason."""


_LOAD_32, _LOAD_16, _SET, _COPY, _ADD, _BIG_ENDIAN, _EXIT = 0x61, 0x69, 0xB7, 0xBF, 0x07, 0xDC, 0x95
_IF_ABOVE, _IF_EQUAL, _IF_OTHER = 0x2D, 0x15, 0x55
"""Jumps over `offset` instructions: where register `to` is above register `of`, equal to `value`, not equal to it."""
_VERDICT, _CONTEXT, _FRAME, _END, _HEADER_END = range(5)
"""Registers: the return value, the argument of the program, and addresses in the frame."""
_FIELD = _FRAME
_XDP_DROP, _XDP_PASS = 1, 2
_TC_DROP, _TC_CONTINUE = 2, -1
"""TC_ACT_SHOT; TC_ACT_UNSPEC, which leaves the frame to other filters."""
_HEADER, _TYPE, _IPV4, _ARP = 14, 12, 0x0800, 0x0806
_PROTOCOL, _VLAN_PRESENT = 16, 20
"""Offsets in `struct __sk_buff`: the type of the frame or of what its tag is before, and whether it has a tag."""

XDP_PROGRAM = (
    Instruction(_LOAD_32, _FRAME, _CONTEXT, 0, 0),  # where the frame begins: xdp_md.data
    Instruction(_LOAD_32, _END, _CONTEXT, 4, 0),  # where it ends: xdp_md.data_end
    Instruction(_SET, _VERDICT, 0, 0, _XDP_DROP),
    Instruction(_COPY, _HEADER_END, _FRAME, 0, 0),
    Instruction(_ADD, _HEADER_END, 0, 0, _HEADER),
    Instruction(_IF_ABOVE, _HEADER_END, _END, 5, 0),  # shorter than an Ethernet header: to the end
    Instruction(_LOAD_16, _FRAME, _FRAME, _TYPE, 0),
    Instruction(_BIG_ENDIAN, _FRAME, 0, 0, 16),  # from the order of the wire to this machine's
    Instruction(_IF_EQUAL, _FRAME, 0, 1, _IPV4),  # over the next
    Instruction(_IF_OTHER, _FRAME, 0, 1, _ARP),  # to the end
    Instruction(_SET, _VERDICT, 0, 0, _XDP_PASS),
    Instruction(_EXIT, 0, 0, 0, 0),
)
"""Passes a frame if it has an Ethernet header with the type of IPv4 or ARP; tags, lengths and others: drop."""

TC_PROGRAM = (
    Instruction(_SET, _VERDICT, 0, 0, _TC_DROP),
    Instruction(_LOAD_32, _FIELD, _CONTEXT, _VLAN_PRESENT, 0),
    Instruction(_IF_OTHER, _FIELD, 0, 5, 0),  # a tag: to the end
    Instruction(_LOAD_32, _FIELD, _CONTEXT, _PROTOCOL, 0),
    Instruction(_BIG_ENDIAN, _FIELD, 0, 0, 16),
    Instruction(_IF_EQUAL, _FIELD, 0, 1, _IPV4),  # over the next
    Instruction(_IF_OTHER, _FIELD, 0, 1, _ARP),  # to the end
    Instruction(_SET, _VERDICT, 0, 0, _TC_CONTINUE),
    Instruction(_EXIT, 0, 0, 0, 0),
)
"""Passes a frame without a tag whose type is IPv4 or ARP. The kernel takes the first tag out of a frame before tc, and
a second one is the type then; a frame with a length in place of the type has the type of LLC or raw 802.3."""


def filter_ports(devices: Sequence[str], datapath: DatapathType) -> None:
    """Attach the filter to devices of this thread's network namespace, where `datapath` needs it, and only there.

    Replaces a filter that they have. For XDP also turns off GRO: with it, older kernels merge TCP segments, and the
    userspace datapath drops frames larger than the MTU. Raises NotFiltered at the first device that cannot be filtered.
    """
    library = _library()
    hook = INGRESS_HOOK[datapath]
    program = _load(library, hook)
    try:
        for device in devices:
            with _not_filtered(device):
                if hook is IngressHook.XDP:
                    library.attach_xdp(device, program)
                    _turn_off_gro(device)
                    library.detach_tc(device)
                else:
                    library.attach_tc(device, program)
                    _detach_xdp(library, device)
    finally:
        os.close(program)  # What it is attached to keeps it.


def unfilter_ports(devices: Sequence[str]) -> None:
    """Remove the filter from devices of this thread's network namespace. Raises NotFiltered when that fails."""
    library = _library()
    for device in devices:
        with _not_filtered(device):
            library.detach_tc(device)
            _detach_xdp(library, device)


def filter_hooks(devices: Sequence[str]) -> Mapping[str, frozenset[IngressHook]]:
    """Where each of these devices has the filter; devices that do not exist are left out.

    Raises NotFiltered when that cannot be read, as without root.
    """
    library = _library()
    present = {name for _, name in socket.if_nameindex()}
    hooks = {}
    for device in present.intersection(devices):
        with _not_filtered(device):
            names = {IngressHook.XDP: library.xdp_name(device), IngressHook.TC: library.tc_name(device)}
            hooks[device] = frozenset(hook for hook, name in names.items() if name == PROGRAM_NAME)
    return hooks


def _library() -> LibBpf:
    try:
        return LibBpf()
    except OSError as error:
        raise NotFiltered(f"ethertypes cannot be filtered without {bpf.LIBRARY}: install libbpf ({error})") from error


def _load(library: LibBpf, hook: IngressHook) -> int:
    """The file descriptor of the program for a hook. Raises NotFiltered."""
    try:
        if hook is IngressHook.XDP:
            return library.load(ProgramType.XDP, PROGRAM_NAME, XDP_PROGRAM, _XDP_HAS_FRAGS)
        return library.load(ProgramType.SCHED_CLS, PROGRAM_NAME, TC_PROGRAM)
    except OSError as error:
        raise NotFiltered(
            f"ethertypes cannot be filtered: the kernel takes no BPF program: {error.strerror}"
        ) from error


@contextmanager
def _not_filtered(device: str) -> Iterator[None]:
    """Raise NotFiltered in place of OSError."""
    try:
        yield
    except OSError as error:
        raise NotFiltered(f"{device}: ethertypes cannot be filtered: {error.strerror or error}") from error


def _detach_xdp(library: LibBpf, device: str) -> None:
    """Remove our own XDP program; another one stays. Raises OSError."""
    if library.xdp_name(device) == PROGRAM_NAME:
        library.detach_xdp(device)


def _turn_off_gro(device: str) -> None:
    """What `ethtool -K DEVICE gro off` does. Raises OSError."""
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_SGRO, 0))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m romana_ovs.switch.ethertypes DEVICE ...`: 0, or 2 with a sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m romana_ovs.switch.ethertypes",
        description="Drop frames other than IPv4 and ARP that come in at these network devices, ports of pods.",
    )
    parser.add_argument(
        "--datapath",
        choices=[each.value for each in DatapathType],
        default=DatapathType.NETDEV.value,
        help="the datapath_type of the bridge (default: netdev)",
    )
    parser.add_argument("--remove", action="store_true", help="remove the filter from these devices")
    parser.add_argument("devices", nargs="+", metavar="DEVICE")
    arguments = parser.parse_args(argv)
    try:
        if arguments.remove:
            unfilter_ports(arguments.devices)
        else:
            filter_ports(arguments.devices, DatapathType(arguments.datapath))
    except NotFiltered as error:
        print(f"romana-ovs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
