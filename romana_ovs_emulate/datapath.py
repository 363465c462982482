"""Chooses the datapath of emulated nodes: the kernel's where it has the module openvswitch, else the userspace one.

Each network namespace has a datapath of its own in the kernel, as it has connections of its own, so nodes are as
separate there as in userspace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import SetupError

MODULE = Path("/sys/module/openvswitch")


def choose_datapath(asked: DatapathType | None) -> DatapathType:
    """`asked`, or for None (`auto`) `system` where this kernel has the module openvswitch, else `netdev`.

    The module is loaded when it is not yet. Raises SetupError when `system` is asked for and cannot be had.
    """
    if asked is DatapathType.NETDEV:
        return asked
    if kernel_has_openvswitch():
        return DatapathType.SYSTEM
    if asked is DatapathType.SYSTEM:
        kernel = os.uname().release
        raise SetupError(
            "the datapath system needs the kernel's module openvswitch, and `modprobe openvswitch` fails here: install "
            f"the modules of kernel {kernel} (on Debian: linux-image-{kernel}), or use the datapath netdev"
        )
    return DatapathType.NETDEV


def kernel_has_openvswitch() -> bool:
    """Whether the module is loaded; loads it if it is not, which needs root."""
    if MODULE.exists():
        return True
    modprobe = shutil.which("modprobe")
    if modprobe is None:
        return False
    return subprocess.run([modprobe, "-q", "openvswitch"], capture_output=True, check=False).returncode == 0
