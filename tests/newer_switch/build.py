"""Makes a prefix with the Open vSwitch of a newer Debian, once per machine, beside that of the system.

Its programs are those of the packages. They run here because their own libraries, libc and the loader of shared
libraries too, are in the prefix and are written into them as absolute paths. Nothing of the system is changed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.build_cache import BuildCache, Progress
from romana_ovs_emulate.debian_packages import NoPackagesError, run_command
from romana_ovs_emulate.system import SCHEMA

SUITE = "trixie"
"""Debian 13: Open vSwitch 3.5."""
CACHE = BuildCache("open-vswitch", f"the Open vSwitch of {SUITE}")
HOST_PROGRAMS = {"mmdebstrap": "mmdebstrap", "patchelf": "patchelf"}
"""Each program that a build needs, and the package that it is in."""
PACKAGE = "openvswitch-switch"
PROGRAMS = {
    "sbin/ovs-vswitchd": "usr/lib/openvswitch-switch/ovs-vswitchd",
    "sbin/ovsdb-server": "usr/sbin/ovsdb-server",
    "bin/ovsdb-tool": "usr/bin/ovsdb-tool",
    "bin/ovsdb-client": "usr/bin/ovsdb-client",
    "bin/ovs-vsctl": "usr/bin/ovs-vsctl",
    "bin/ovs-ofctl": "usr/bin/ovs-ofctl",
    "bin/ovs-appctl": "usr/bin/ovs-appctl",
    "bin/ovs-dpctl": "usr/bin/ovs-dpctl",
}
"""Each program of a prefix, and where Debian's packages have it."""
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
UNPACK_SECONDS = 600.0
PATCH_SECONDS = 60.0


def build_key() -> str:
    """The name of a prefix in the cache: it depends on the suite and on this module."""
    return f"{SUITE}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"


def newer_source(sources: Iterable[str]) -> str:
    """The line of a sources.list for the newer suite, from the mirror of `sources` (lines such as apt's own).

    Raises NoPackagesError when none of them is Debian's main archive.
    """
    for line in sources:
        _, uri, release, component = line.split()
        if component == "main" and "-" not in release and "/" not in release:
            return f"deb {uri} {SUITE} main"
    raise NoPackagesError("apt has no list of Debian's main archive here: run apt-get update")


def find() -> Path | None:
    """The prefix, or None if there is none yet."""
    return CACHE.find(build_key())


def build(sources: Iterable[str], progress: Progress) -> Path:
    """The prefix, with the packages of the mirror of `sources`. Takes less than a minute. Raises SetupError."""
    key = build_key()
    source = newer_source(sources)
    try:
        return CACHE.find_or_build(key, lambda draft: _build(draft, CACHE.folder / key, source, progress), progress)
    except OSError as error:
        raise SetupError(f"{CACHE.title} cannot be installed: {error.strerror or error}") from error


def _build(folder: Path, prefix: Path, source: str, progress: Progress) -> None:
    """Fill `folder`, which will be renamed to `prefix`."""
    progress(f"Fetching {CACHE.title}, once for this machine, into {prefix}")
    root = folder / "root"
    run_command(
        ["mmdebstrap", "--quiet", "--variant=extract", "--mode=root", f"--include={PACKAGE}", SUITE, str(root), source],
        seconds=UNPACK_SECONDS,
        error=NoPackagesError,
        progress=progress,
        title="mmdebstrap",
    )
    for name in ("bin", "sbin", "lib"):
        (folder / name).mkdir()
    for name, packaged in PROGRAMS.items():
        shutil.copy(root / packaged, folder / name)
    shutil.copytree((root / "usr" / SCHEMA).parent, (folder / SCHEMA).parent)
    _copy_libraries(root / LIBRARIES, folder)
    for name in PROGRAMS:
        loader = ["--set-interpreter", str(prefix / "lib" / LOADER)]
        # DT_RPATH: unlike DT_RUNPATH it also counts for the libraries that libraries need.
        path = ["--force-rpath", "--set-rpath", str(prefix / "lib")]
        run_command(["patchelf", *loader, *path, str(folder / name)], seconds=PATCH_SECONDS)
    shutil.rmtree(root)


def _copy_libraries(libraries: Path, folder: Path) -> None:
    """Copy what the programs of `folder` need, and what that needs in turn, into its `lib`."""
    waiting = [folder / name for name in PROGRAMS]
    while waiting:
        needed = run_command(["patchelf", "--print-needed", str(waiting.pop())], seconds=PATCH_SECONDS)
        for name in needed.split():
            copy = folder / "lib" / name
            if not copy.exists():
                shutil.copy(libraries / name, copy)
                waiting.append(copy)
