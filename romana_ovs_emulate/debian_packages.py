"""Installs programs and names package sources of the Debian on this machine, by apt; runs commands of builds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.build_cache import Progress

APART = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Begins a command of root that mounts and starts much: all of that ends with it, and with us."""
APT_SECONDS = 600.0
PROGRESS_SECONDS = 15.0

_SOURCE = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_NO_QUESTIONS = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


class NoPackagesError(SetupError):
    """The distribution's packages cannot be had here: the fault of the network or of the system, not of our code."""


def missing_packages(programs: Mapping[str, str]) -> list[str]:
    """The packages of those `programs` (program -> package) that are not installed, sorted."""
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return sorted({package for program, package in programs.items() if not shutil.which(program, path=folders)})


def prepare_host(progress: Progress, programs: Mapping[str, str], *, known: str) -> None:
    """Install what `programs` (program -> package) lack, after fetching package lists if there are none.

    There are lists when apt knows the package `known`. Raises NoPackagesError.
    """
    if shutil.which("apt-get") is None:
        raise NoPackagesError("the build is from Debian's packages, and there is no apt-get")
    if (machine := os.uname().machine) != "x86_64":
        raise NoPackagesError(f"the build is for x86_64, and this processor is {machine}")
    missing = missing_packages(programs)
    if missing or not run_command(["apt-cache", "pkgnames", known], seconds=APT_SECONDS).strip():
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
