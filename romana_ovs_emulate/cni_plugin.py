"""Builds the CNI plugin romana-cni with Go, once for each version of its sources (etc/cni).

`python -m romana_ovs_emulate.cni_plugin FILE` puts it at FILE, in one step.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from romana_ovs.data_files import data_file
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.build_cache import BuildCache, Progress

NAME = "romana-cni"
CACHE = BuildCache("cni", NAME)
_SOURCES = ("go.mod", "go.sum", "main.go")
_BUILD_SECONDS = 600.0


def unavailable_reason() -> str:
    """Why the plugin cannot be built here, as a sentence; empty when it was built or can be."""
    if CACHE.find(_key()) is not None or shutil.which("go") is not None:
        return ""
    return "the CNI plugin needs Go 1.21 or later to be built"


def find_or_build(progress: Progress) -> Path:
    """The program. Raises SetupError when it cannot be built."""
    if reason := unavailable_reason():
        raise SetupError(reason)
    return CACHE.find_or_build(_key(), lambda folder: _build(folder, progress), progress) / NAME


def _key() -> str:
    module = data_file("cni")
    text = b"".join((module / name).read_bytes() for name in _SOURCES)
    return f"{platform.machine()}-{hashlib.sha256(text).hexdigest()[:12]}"


def _build(folder: Path, progress: Progress) -> None:
    progress(f"Building the CNI plugin {NAME} with Go, once for this machine")
    try:
        done = subprocess.run(
            # Without C, so that it is static and runs on every host; without the repository's state, so that it is the
            # same program for the same sources.
            ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(folder / NAME), "."],
            cwd=data_file("cni"),
            env={**os.environ, "GOWORK": "off", "CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{NAME} was not built within {_BUILD_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise SetupError(f"{NAME} cannot be built with Go: {'; '.join(done.stderr.strip().splitlines()[-6:])}")


def install(target: Path) -> None:
    """Build the program if need be, and put it at `target` as `copy_to` does. Raises SetupError."""
    copy_to(find_or_build(lambda text: print(text, flush=True)), target)


def copy_to(program: Path, target: Path) -> None:
    """Copy the program to `target` in one step, as a runtime may start it at any time. Raises SetupError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as copy:
            copy.write(program.read_bytes())
        Path(copy.name).chmod(0o755)
        Path(copy.name).rename(target)
    except OSError as error:
        raise SetupError(f"{target} cannot be written: {error.strerror}") from error


def main() -> int:
    """Returns exit code 0, or 2 when the plugin cannot be built or put there."""
    try:
        install(Path(sys.argv[1]))
    except (IndexError, SetupError) as error:
        print(error if isinstance(error, SetupError) else "name the file to write", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
