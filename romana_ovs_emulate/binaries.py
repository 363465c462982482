"""Finds the programs of a Kubernetes control plane, or builds them once per machine (etc/kubernetes/binaries/go.mod).

`python -m romana_ovs_emulate.binaries` builds them if they are missing and Go is installed. With `--nodes` it builds
those of real nodes, too.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.data_files import data_file
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.build_cache import BuildCache, Progress

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
"""Each program and the Go package that it is built from."""
NODE_PACKAGES = {
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "agnhost": "k8s.io/kubernetes/test/images/agnhost",
}
"""The programs of real nodes, and the one that Kubernetes' own tests run in pods."""
AGNHOST_VERSION = "test/images/agnhost/VERSION"
NEEDED = ("etcd", "kube-apiserver", "kubectl")
"""The programs that a folder of binaries must have: those of envtest, whose convention KUBEBUILDER_ASSETS is."""
ASSETS = "KUBEBUILDER_ASSETS"
PROGRESS_SECONDS = 15.0
"""How often a build reports its progress, in seconds."""
CACHE = BuildCache("kubernetes", "Kubernetes")
NODE_CACHE = BuildCache("kubernetes-nodes", "the programs of Kubernetes nodes")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with the programs of a control plane, at least those of NEEDED."""

    folder: Path

    def path(self, program: str) -> Path:
        """Where `program` is. Raises SetupError when this folder lacks it."""
        path = self.folder / program
        if not os.access(path, os.X_OK):
            raise SetupError(f"{self.folder} has no {program}: put it there, or unset {ASSETS} to have it built")
        return path


def find() -> Binaries | None:
    """The programs in KUBEBUILDER_ASSETS if that is set, else those that were built before, else None.

    Raises SetupError when KUBEBUILDER_ASSETS names a folder that lacks one of NEEDED.
    """
    assets = os.environ.get(ASSETS)
    if assets:
        binaries = Binaries(Path(assets))
        for program in NEEDED:
            if not os.access(binaries.folder / program, os.X_OK):
                raise SetupError(f"{ASSETS} is {assets}, but there is no {program} in it that can be run")
        return binaries
    folder = CACHE.find(_key(_module()))
    return None if folder is None else Binaries(folder)


def unavailable_reason() -> str:
    """Why no control plane can run here, as a sentence; empty when the programs exist or can be built."""
    if find() is not None or shutil.which("go") is not None:
        return ""
    return f"needs the programs of Kubernetes: install Go to have them built, or set {ASSETS} to a folder of them"


def find_or_build(progress: Progress) -> Binaries:
    """The programs, built if there are none. A build takes minutes; only one runs at a time.

    Raises SetupError when they cannot be built.
    """
    present = find()
    if present is not None:
        return present
    if reason := unavailable_reason():
        raise SetupError(f"a Kubernetes control plane {reason}")
    module = _module()

    def build(folder: Path) -> None:
        progress(f"Building Kubernetes {_version(module)} with Go, once for this machine (ten minutes on two cores)")
        _build(module, folder, PACKAGES, _stamp(_version(module)), progress)
        # Go names a program after the last element of its package path, without the version: etcd's is `server`.
        (folder / "server").rename(folder / "etcd")

    return Binaries(CACHE.find_or_build(_key(module), build, progress))


def node_programs_unavailable_reason() -> str:
    """Why the programs of NODE_PACKAGES cannot be had here, as a sentence; empty when they exist or can be built."""
    if NODE_CACHE.find(_key(_module())) is not None or shutil.which("go") is not None:
        return ""
    return "needs the programs of Kubernetes nodes (kubelet, ...): install Go to have them built"


def find_or_build_node_programs(progress: Progress) -> Binaries:
    """The programs of NODE_PACKAGES, built if there are none: a few minutes after a build of the control plane.

    Raises SetupError when they cannot be built.
    """
    if reason := node_programs_unavailable_reason():
        raise SetupError(f"a Kubernetes node {reason}")
    module = _module()

    def build(folder: Path) -> None:
        programs = ", ".join(NODE_PACKAGES)
        progress(f"Building {programs} {_version(module)} with Go, once for this machine (some minutes on two cores)")
        stamp = f"{_stamp(_version(module))} -X main.Version={_agnhost_version(module)}"
        _build(module, folder, NODE_PACKAGES, stamp, progress)

    return Binaries(NODE_CACHE.find_or_build(_key(module), build, progress))


def _module() -> Path:
    """The folder of go.mod and go.sum."""
    return data_file("kubernetes/binaries")


def _version(module: Path) -> str:
    """The version of Kubernetes that a module requires, such as `1.37.2`."""
    match = re.search(r"^\s*k8s\.io/kubernetes v(\d+\.\d+\.\d+)\b", (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise SetupError(f"{module / 'go.mod'} does not require k8s.io/kubernetes")
    return match[1]


def _key(module: Path) -> str:
    """The name of the folder in the cache, which depends on the sources."""
    text = b"".join((module / name).read_bytes() for name in ("go.mod", "go.sum"))
    return f"{_version(module)}-{platform.machine()}-{hashlib.sha256(text).hexdigest()[:12]}"


def _build(module: Path, folder: Path, packages: Mapping[str, str], stamp: str, progress: Progress) -> None:
    """Build the programs into `folder`, with `stamp` as linker flags.

    Go caches what it compiled, so a second attempt continues the first.
    """
    process = subprocess.Popen(
        ["go", "build", "-v", "-trimpath", "-ldflags", stamp, "-o", f"{folder}{os.sep}", *packages.values()],
        cwd=module,
        env={**os.environ, "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        last_lines = _read_progress(process, progress)
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code != 0:
        raise SetupError(f"Kubernetes cannot be built with Go: {'; '.join(last_lines)}")


def _read_progress(process: subprocess.Popen[str], progress: Progress) -> list[str]:
    """Report how many packages are compiled. Returns the last lines, which contain the error when the build fails."""
    last: list[str] = []
    compiled, reported = 0, time.monotonic()
    for line in process.stderr or ():
        last = [*last, line.strip()][-6:]
        compiled += not line.startswith(("go:", "#"))
        if time.monotonic() - reported > PROGRESS_SECONDS:
            reported = time.monotonic()
            progress(f"  {compiled} packages compiled, {last[-1]}")
    return last


def _stamp(version: str) -> str:
    """The linker flags that set the programs' version."""
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items())])


def main(argv: Sequence[str] = ()) -> int:
    """Returns exit code 0, or 2 when the build fails. When nothing can be built, prints why: an error in CI only."""
    parser = argparse.ArgumentParser(description="Builds the programs of Kubernetes that are missing.")
    parser.add_argument("--nodes", action="store_true", help="those of real nodes, too")
    nodes = parser.parse_args(argv).nodes
    try:
        if (reason := unavailable_reason()) and not os.environ.get("CI"):
            print(f"The tests on a Kubernetes API server will be skipped: that {reason}.")
        else:
            find_or_build(_print)
            if nodes:
                find_or_build_node_programs(_print)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _agnhost_version(module: Path) -> str:
    """The version of agnhost that Kubernetes' tests ask for, from the module's sources. Raises SetupError."""
    command = ["go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]
    done = subprocess.run(command, cwd=module, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"the sources of Kubernetes are not there: {' '.join(done.stderr.split())}")
    return (Path(done.stdout.strip()) / AGNHOST_VERSION).read_text().strip()


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
