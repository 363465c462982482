"""Drops frames other than IPv4 and ARP at the port of a pod, before Open vSwitch, by an XDP program of the kernel.

Open vSwitch matches the whole ethertype of every frame, whatever the tables match, so a pod that sends random
ethertypes makes a megaflow for each. The userspace datapath reads a port by a packet socket, which gets a frame before
tc and nftables; XDP comes before that. The tables drop the same frames, too.

It uses the driver's XDP ("native"), which veth and tap have, not the generic one, which does not see frames that tc has
redirected, as root in a pod can do. The program stays attached for the life of the device;
`ip link set DEVICE xdp off` removes it. It does not see what the kernel keeps beside a frame, such as the tag of a VLAN
interface. Linux 5.18 or later and libbpf 1.0 or later are needed.

Sources: Documentation/bpf/instruction-set.rst, linux/bpf.h (xdp_md, xdp_action) and linux/if_link.h of Linux; bpf.h and
libbpf.h of libbpf; drivers/net/veth.c.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from romana_ovs.model.errors import SetupError

LIBRARY = "libbpf.so.1"
PROGRAM_NAME = b"ethertypes"
"""The name of the program in `ip -d link` and bpftool."""
_PROG_TYPE_XDP = 6
_XDP_HAS_FRAGS = 1 << 5
"""The program takes frames that are not in one piece; without it veth refuses an MTU above some 3,500 bytes."""
_DRIVER_MODE = 1 << 2
_LICENSE = b"Apache-2.0"
_SIOCETHTOOL = 0x8946
_ETHTOOL_SGRO = 0x2C


class NotFiltered(SetupError):
    """The ports of pods cannot be filtered; the message has the device, if any, and the reason."""


class Instruction(ctypes.Structure):
    """One instruction of BPF (`struct bpf_insn`)."""

    _fields_ = (
        ("code", ctypes.c_uint8),
        ("to", ctypes.c_uint8, 4),
        ("of", ctypes.c_uint8, 4),
        ("offset", ctypes.c_int16),
        ("value", ctypes.c_int32),
    )


_LOAD_32, _LOAD_16, _SET, _COPY, _ADD, _BIG_ENDIAN, _EXIT = 0x61, 0x69, 0xB7, 0xBF, 0x07, 0xDC, 0x95
_IF_ABOVE, _IF_EQUAL, _IF_OTHER = 0x2D, 0x15, 0x55
"""Jumps over `offset` instructions: where register `to` is above register `of`, equal to `value`, not equal to it."""
_VERDICT, _CONTEXT, _FRAME, _END, _HEADER_END = range(5)
"""Registers: the return value, the argument of the program, and addresses in the frame."""
_DROP, _PASS = 1, 2
_HEADER, _TYPE, _IPV4, _ARP = 14, 12, 0x0800, 0x0806

PROGRAM = (
    Instruction(_LOAD_32, _FRAME, _CONTEXT, 0, 0),  # where the frame begins: xdp_md.data
    Instruction(_LOAD_32, _END, _CONTEXT, 4, 0),  # where it ends: xdp_md.data_end
    Instruction(_SET, _VERDICT, 0, 0, _DROP),
    Instruction(_COPY, _HEADER_END, _FRAME, 0, 0),
    Instruction(_ADD, _HEADER_END, 0, 0, _HEADER),
    Instruction(_IF_ABOVE, _HEADER_END, _END, 5, 0),  # shorter than an Ethernet header: to the end
    Instruction(_LOAD_16, _FRAME, _FRAME, _TYPE, 0),
    Instruction(_BIG_ENDIAN, _FRAME, 0, 0, 16),  # from the order of the wire to this machine's
    Instruction(_IF_EQUAL, _FRAME, 0, 1, _IPV4),  # over the next
    Instruction(_IF_OTHER, _FRAME, 0, 1, _ARP),  # to the end
    Instruction(_SET, _VERDICT, 0, 0, _PASS),
    Instruction(_EXIT, 0, 0, 0, 0),
)
"""Passes a frame if it has an Ethernet header with the type of IPv4 or ARP. Tags, lengths and all other types: drop."""


class _LoadOptions(ctypes.Structure):
    """The beginning of `struct bpf_prog_load_opts`; libbpf takes the rest for zeros."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("attach_type", ctypes.c_int),
        ("btf", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


def filter_ports(devices: Sequence[str]) -> None:
    """Attaches the filter to devices of this thread's network namespace; replaces a filter that they have.

    Also turns off GRO: with XDP, older kernels merge TCP segments, and the userspace datapath drops frames larger than
    the MTU. Raises NotFiltered at the first device that cannot be
    filtered.
    """
    library = _library()
    with _loaded(library) as program:
        for device in devices:
            try:
                _attach(library, device, program)
            except OSError as error:
                raise NotFiltered(f"{device}: ethertypes cannot be filtered: {error.strerror or error}") from error


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NotFiltered(f"ethertypes cannot be filtered without {LIBRARY}: install libbpf ({error})") from error
    library.libbpf_set_print(None)  # It would write to our standard error.
    return library


@contextmanager
def _loaded(library: ctypes.CDLL) -> Iterator[int]:
    """The program's file descriptor; what it is attached to keeps the program."""
    code = (Instruction * len(PROGRAM))(*PROGRAM)
    options = _LoadOptions(ctypes.sizeof(_LoadOptions), 0, 0, 0, _XDP_HAS_FRAGS)
    program = library.bpf_prog_load(
        _PROG_TYPE_XDP, PROGRAM_NAME, _LICENSE, code, ctypes.c_size_t(len(PROGRAM)), ctypes.byref(options)
    )
    if program < 0:
        raise NotFiltered(f"ethertypes cannot be filtered: the kernel takes no BPF program: {os.strerror(-program)}")
    try:
        yield program
    finally:
        os.close(program)


def _attach(library: ctypes.CDLL, device: str, program: int) -> None:
    """Raises OSError."""
    code = library.bpf_xdp_attach(socket.if_nametoindex(device), program, _DRIVER_MODE, None)
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    merged = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_SGRO, 0))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(merged))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, _SIOCETHTOOL, request)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m romana_ovs.switch.ethertypes DEVICE ...`: 0, or 2 with a sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m romana_ovs.switch.ethertypes",
        description="Drop frames other than IPv4 and ARP that come in at these network devices, ports of pods.",
    )
    parser.add_argument("devices", nargs="+", metavar="DEVICE")
    try:
        filter_ports(parser.parse_args(argv).devices)
    except NotFiltered as error:
        print(f"romana-ovs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
