"""Finds out which packages of the distribution the virtual machine is built from, and which are missing on this one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.build_cache import Progress

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
APT_SECONDS = 600.0
PROGRESS_SECONDS = 15.0

_SOURCE = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_NO_QUESTIONS = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


class NoPackagesError(SetupError):
    """The distribution's packages cannot be had here: the fault of the network or of the system, not of our code."""


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
    wanted = HOST_PROGRAMS if programs is None else programs
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return sorted({package for program, package in wanted.items() if not shutil.which(program, path=folders)})


def prepare_host(progress: Progress, programs: Mapping[str, str] | None = None) -> None:
    """Install what `programs` lack, after fetching package lists if there are none. Raises NoPackagesError."""
    if shutil.which("apt-get") is None:
        raise NoPackagesError("the build is from Debian's packages, and there is no apt-get")
    if (machine := os.uname().machine) != "x86_64":
        raise NoPackagesError(f"the build is for x86_64, and this processor is {machine}")
    missing = missing_host_packages(programs)
    if missing or not run_command(["apt-cache", "pkgnames", KERNEL], seconds=APT_SECONDS).strip():
        progress("Fetching the lists of Debian's packages")
        apt("apt-get", "update", "-q", progress=progress)
    if missing:
        names = " ".join(missing)
        progress(f"Installing system packages: {names}")
        try:
            options = ("-qy", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300")
            apt("apt-get", "install", *options, *missing, progress=progress)
        except NoPackagesError as error:
            command = f"apt-get install --no-install-recommends {names}"
            raise NoPackagesError(f"missing are {names} ({error}): {command}") from error


def find_packages() -> Packages:
    """What the virtual machine is built from. Raises NoPackagesError where apt does not know Debian's packages."""
    suite, sources = find_sources()
    kernel = parse_kernel(apt("apt-cache", "depends", KERNEL))
    shown = apt("apt-cache", "show", "--no-all-versions", kernel, BUSYBOX, *GUEST_PACKAGES)
    return Packages(suite, sources, kernel, parse_versions(shown))


def find_sources() -> tuple[str, tuple[str, ...]]:
    """The suite and the lines of a sources.list for Debian's own archives as apt knows them. Raises NoPackagesError."""
    return parse_sources(apt("apt-get", "indextargets", "--format", _SOURCE, "Created-By: Packages"))


def parse_sources(targets: str) -> tuple[str, tuple[str, ...]]:
    """The suite and the lines of a sources.list for Debian's own archives among apt's index targets.

    Raises NoPackagesError when there are none.
    """
    releases, lines = [], []
    for target in targets.splitlines():
        origin, uri, release, component = target.split("|")
        if origin == "Debian":
            releases.append(release)
            lines.append(f"deb {uri} {release} {component}")
    if not lines:
        raise NoPackagesError("apt has no lists of Debian's packages here: run apt-get update")
    # `bookworm-updates` and `bookworm-security` add to `bookworm`.
    return min(releases, key=len), tuple(dict.fromkeys(lines))


def parse_kernel(depends: str) -> str:
    """The package of the newest kernel in the output of `apt-cache depends linux-image-amd64`."""
    match = re.search(r"Depends: (linux-image-\d\S*)", depends)
    if match is None:
        raise NoPackagesError(f"apt does not know {KERNEL}: run apt-get update")
    return match[1]


def parse_versions(shown: str) -> tuple[str, ...]:
    """`PACKAGE VERSION` for each record in the output of `apt-cache show`, sorted."""
    names = re.findall(r"^Package: (\S+)$", shown, re.MULTILINE)
    versions = re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)
    return tuple(sorted(f"{name} {version}" for name, version in zip(names, versions, strict=True)))


def apt(*argv: str, progress: Progress = lambda text: None) -> str:
    """The output of a command of apt, in English. Raises NoPackagesError with its last line when it fails."""
    return run_command(argv, seconds=APT_SECONDS, error=NoPackagesError, progress=progress)


def run_command(
    argv: Sequence[str],
    *,
    seconds: float,
    error: type[SetupError] = SetupError,
    cwd: str | os.PathLike[str] | None = None,
    progress: Progress = lambda text: None,
    title: str = "",
) -> str:
    """The output of a program; `progress` is called every PROGRESS_SECONDS while it runs.

    Raises `error` with its title and its last line when it fails or takes longer than `seconds`.
    """
    title = title or " ".join(argv[:2])
    environment = {**os.environ, **_NO_QUESTIONS, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", env=environment, cwd=cwd,
        )  # fmt: skip
    except FileNotFoundError as lacking:
        raise error(f"{argv[0]} is not installed") from lacking
    with process:
        try:
            output, errors = _communicate(process, seconds, progress)
        except subprocess.TimeoutExpired as late:
            process.kill()
            raise error(f"`{title}` did not end within {seconds:.0f} s") from late
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = (errors.strip() or output.strip() or f"exit code {process.returncode}").splitlines()
        raise error(f"`{title}` failed: {lines[-1]}")
    return output


def _communicate(process: subprocess.Popen[str], seconds: float, progress: Progress) -> tuple[str, str]:
    """What the process writes until it ends. Raises TimeoutExpired when that takes longer than `seconds`."""
    began = time.monotonic()
    while True:
        left = began + seconds - time.monotonic()
        try:
            return process.communicate(timeout=min(left, PROGRESS_SECONDS))
        except subprocess.TimeoutExpired:
            if left <= PROGRESS_SECONDS:
                raise
            progress(f"    {time.monotonic() - began:.0f} s")
