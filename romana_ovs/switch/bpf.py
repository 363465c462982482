"""Loads BPF programs and attaches them to network devices by libbpf, as XDP programs and as tc filters.

Everything is of this thread's network namespace. Functions raise OSError with the kernel's error.

Sources: bpf.h and libbpf.h of libbpf 1.0; linux/bpf.h (bpf_insn, bpf_prog_info), linux/if_link.h and tc-bpf(8).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Sequence
from enum import IntEnum

LIBRARY = "libbpf.so.1"
_LICENSE = b"Apache-2.0"
_DRIVER_MODE = 1 << 2
"""The device driver's own XDP, which veth and tap have (XDP_FLAGS_DRV_MODE)."""
_INGRESS = 1
_REPLACE = 1
PRIORITY, HANDLE = 7, 1
"""Of the tc filter; numbers that others are unlikely to take. `tc` shows the priority as `pref`."""
_NONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
"""The kernel's errors for a filter that is not there: without a qdisc it is EINVAL."""
_NAME_BYTES = 16


class ProgramType(IntEnum):
    """What a program is attached to (`enum bpf_prog_type`)."""

    SCHED_CLS = 3
    XDP = 6


class Instruction(ctypes.Structure):
    """One instruction of BPF (`struct bpf_insn`)."""

    _fields_ = (
        ("code", ctypes.c_uint8),
        ("to", ctypes.c_uint8, 4),
        ("of", ctypes.c_uint8, 4),
        ("offset", ctypes.c_int16),
        ("value", ctypes.c_int32),
    )


class _LoadOptions(ctypes.Structure):
    """The beginning of `struct bpf_prog_load_opts`; libbpf takes the rest for zeros."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("attach_type", ctypes.c_int),
        ("btf", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class _TcHook(ctypes.Structure):
    """`struct bpf_tc_hook`."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    """`struct bpf_tc_opts`."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("program", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("program_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


class _ProgramInfo(ctypes.Structure):
    """The beginning of `struct bpf_prog_info`; the kernel writes as much as there is room for."""

    _fields_ = (("before", ctypes.c_uint8 * 64), ("name", ctypes.c_char * _NAME_BYTES))


class LibBpf:
    """The library. Raises OSError where it is not installed."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.libbpf_set_print(None)  # It would write to our standard error.

    def load(self, kind: ProgramType, name: bytes, instructions: Sequence[Instruction], flags: int = 0) -> int:
        """The file descriptor of a program, for the caller to close. Raises OSError."""
        code = (Instruction * len(instructions))(*instructions)
        options = _LoadOptions(ctypes.sizeof(_LoadOptions), 0, 0, 0, flags)
        length = ctypes.c_size_t(len(instructions))
        program = self._library.bpf_prog_load(int(kind), name, _LICENSE, code, length, ctypes.byref(options))
        _require(program)
        return int(program)

    def attach_xdp(self, device: str, program: int) -> None:
        """Attach a program to the driver's XDP, in place of one that is there. Raises OSError."""
        _require(self._library.bpf_xdp_attach(socket.if_nametoindex(device), program, _DRIVER_MODE, None))

    def detach_xdp(self, device: str) -> None:
        """Remove the program of the driver's XDP, if there is one. Raises OSError."""
        _require(self._library.bpf_xdp_detach(socket.if_nametoindex(device), _DRIVER_MODE, None))

    def xdp_name(self, device: str) -> bytes:
        """The name of the program of the driver's XDP, empty without one. Raises OSError."""
        number = ctypes.c_uint32()
        _require(self._library.bpf_xdp_query_id(socket.if_nametoindex(device), _DRIVER_MODE, ctypes.byref(number)))
        return self._name(number.value)

    def attach_tc(self, device: str, program: int) -> None:
        """Make a program the filter of PRIORITY at the device's ingress, in place of one that is there. Raises OSError.

        Without the qdisc clsact or ingress the device gets clsact, which ovs-vswitchd leaves alone: it removes ingress.
        """
        hook = _tc_hook(device)
        code = self._library.bpf_tc_hook_create(ctypes.byref(hook))
        if code != -errno.EEXIST:
            _require(code)
        options = _TcOptions(ctypes.sizeof(_TcOptions), program, _REPLACE, 0, HANDLE, PRIORITY)
        _require(self._library.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)))

    def detach_tc(self, device: str) -> None:
        """Remove the filter of PRIORITY, if there is one. The qdisc stays, as others may use it. Raises OSError."""
        code = self._library.bpf_tc_detach(ctypes.byref(_tc_hook(device)), ctypes.byref(_tc_options()))
        if -code not in _NONE:
            _require(code)

    def tc_name(self, device: str) -> bytes:
        """The name of the program that is the filter of PRIORITY, empty without one. Raises OSError."""
        options = _tc_options()
        code = self._library.bpf_tc_query(ctypes.byref(_tc_hook(device)), ctypes.byref(options))
        if -code in _NONE:
            return b""
        _require(code)
        return self._name(options.program_id)

    def _name(self, number: int) -> bytes:
        """The name of the program with this id, empty for 0. Raises OSError."""
        if not number:
            return b""
        program = self._library.bpf_prog_get_fd_by_id(ctypes.c_uint32(number))
        _require(program)
        try:
            info = _ProgramInfo()
            size = ctypes.c_uint32(ctypes.sizeof(info))
            _require(self._library.bpf_obj_get_info_by_fd(program, ctypes.byref(info), ctypes.byref(size)))
            return bytes(info.name)
        finally:
            os.close(program)


def _tc_hook(device: str) -> _TcHook:
    return _TcHook(ctypes.sizeof(_TcHook), socket.if_nametoindex(device), _INGRESS, 0)


def _tc_options() -> _TcOptions:
    return _TcOptions(ctypes.sizeof(_TcOptions), 0, 0, 0, HANDLE, PRIORITY)


def _require(code: int) -> None:
    """Raises OSError for a negative result of libbpf."""
    if code < 0:
        raise OSError(-code, os.strerror(-code))
