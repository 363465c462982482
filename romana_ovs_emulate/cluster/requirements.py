"""Checks that a cluster of real nodes can run on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import binaries, cni_plugin
from romana_ovs_emulate.system import PROGRAMS

PACKAGES = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "ethtool": "ethtool",
    "ovs-vswitchd": "openvswitch-switch",
}
"""The programs that nodes need, and the Debian package of each."""
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
"""Where distributions put the plugins of the CNI project."""
CNI_PLUGINS = ("loopback", "portmap")


def missing_requirement() -> str:
    """What this machine lacks for a cluster, as a sentence; empty when nothing."""
    if os.geteuid() != 0:
        return "a cluster needs root (namespaces, mounts, control groups, Open vSwitch): run it with sudo"
    for program in (*PROGRAMS, *PACKAGES):
        if shutil.which(program) is None:
            package = PACKAGES.get(program, "openvswitch-switch, iproute2 and util-linux")
            return f"a cluster needs the program {program}: install {package}"
    if not cni_plugins():
        return f"a cluster needs the CNI plugins {' and '.join(CNI_PLUGINS)}: install containernetworking-plugins"
    if reason := binaries.unavailable_reason() or binaries.node_programs_unavailable_reason():
        return f"a cluster {reason}"
    return cni_plugin.unavailable_reason()


def require() -> None:
    """Raises SetupError with what is missing."""
    if reason := missing_requirement():
        raise SetupError(reason)


def cni_plugins() -> tuple[Path, ...]:
    """Where the plugins of CNI_PLUGINS are; empty when they are not together in one folder."""
    for folder in CNI_FOLDERS:
        paths = tuple(folder / name for name in CNI_PLUGINS)
        if all(os.access(path, os.X_OK) for path in paths):
            return paths
    return ()
