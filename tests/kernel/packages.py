"""Finds out which packages of the distribution the virtual machine is built from, and which are missing on this one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from romana_ovs_emulate import debian_packages
from romana_ovs_emulate.build_cache import Progress
from romana_ovs_emulate.debian_packages import NoPackagesError, apt, find_sources, parse_versions

HOST_PROGRAMS: Mapping[str, str] = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "cpio": "cpio",
    "depmod": "kmod",
    "mke2fs": "e2fsprogs",
}
"""Each program that this machine needs, and the package that it is in."""
GUEST_PACKAGES = (
    "conntrack",
    "curl",
    "ethtool",
    "iproute2",
    "iputils-ping",
    "kmod",
    "mininet",
    "nftables",
    "openssl",
    "openvswitch-switch",
    "procps",
    "python3",
    "python3-venv",
)
"""What is installed in the virtual machine, with what these depend on."""
KERNEL = "linux-image-amd64"
"""The package that depends on the newest kernel of the distribution."""
BUSYBOX = "busybox-static"
"""The shell of the initramfs. Neither it nor the kernel is installed anywhere: their files are taken out."""


@dataclass(frozen=True, slots=True)
class Packages:
    """The distribution's packages as apt knows them on this machine."""

    suite: str
    """Such as `bookworm`."""
    sources: tuple[str, ...]
    """Lines of a sources.list."""
    kernel: str
    """The package of the kernel itself, such as `linux-image-6.1.0-57-amd64`."""
    versions: tuple[str, ...]
    """`PACKAGE VERSION` of the kernel and of each of GUEST_PACKAGES, sorted."""

    @property
    def release(self) -> str:
        """The kernel's release as `uname -r` prints it."""
        return self.kernel.removeprefix("linux-image-")


def missing_host_packages(programs: Mapping[str, str] | None = None) -> list[str]:
    """The packages of those `programs` (program -> package; by default HOST_PROGRAMS) that are not installed."""
    return debian_packages.missing_packages(HOST_PROGRAMS if programs is None else programs)


def prepare_host(progress: Progress, programs: Mapping[str, str] | None = None) -> None:
    """Install what `programs` lack, after fetching package lists if there are none. Raises NoPackagesError."""
    debian_packages.prepare_host(progress, HOST_PROGRAMS if programs is None else programs, known=KERNEL)


def find_packages() -> Packages:
    """What the virtual machine is built from. Raises NoPackagesError where apt does not know Debian's packages."""
    suite, sources = find_sources()
    kernel = parse_kernel(apt("apt-cache", "depends", KERNEL))
    shown = apt("apt-cache", "show", "--no-all-versions", kernel, BUSYBOX, *GUEST_PACKAGES)
    return Packages(suite, sources, kernel, parse_versions(shown))


def parse_kernel(depends: str) -> str:
    """The package of the newest kernel in the output of `apt-cache depends linux-image-amd64`."""
    match = re.search(r"Depends: (linux-image-\d\S*)", depends)
    if match is None:
        raise NoPackagesError(f"apt does not know {KERNEL}: run apt-get update")
    return match[1]
