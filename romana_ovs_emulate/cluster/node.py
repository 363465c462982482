"""Makes a node: network, mount, process and host name namespaces in which all its programs have their usual places.

A node shows the files of this machine, but what it writes stays in its own folder: /etc, /opt and /var/lib are
overlays, and the folders of its programs (PRIVATE_FOLDERS) begin empty. So nothing here needs paths of its own,
manifests for real clusters fit, and whatever the node does ends with its first process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import cgroups
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.runs import Run
from romana_ovs_emulate.system import NETNS_FOLDER, ip_batch, run

OVERLAYS = ("/etc", "/opt", "/var/lib")
"""Folders of this machine of which a node has a copy on write."""
MODULES = Path("/lib/modules")
"""A folder that manifests mount, and that a runtime would make on this machine where it has no modules."""
PRIVATE_FOLDERS = (
    "/etc/cni",
    "/etc/containerd",
    "/etc/kubernetes",
    "/etc/openvswitch",
    "/etc/romana-ovs",
    "/opt/cni",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/openvswitch",
    "/var/lib/romana-ovs",
    "/var/log",
)
"""Folders that begin empty, on the disk itself (containers need that: an overlay is no place for another one)."""
PROGRAM_SECONDS = patience(60.0)
"""How long a command in a node may take, in seconds."""
READY = "ready\n"

_PREPARE = """
set -eu
disk=$1; name=$2; overlays=$3; private=$4
hostname "$name"
for folder in $overlays; do
    mkdir -p "$disk/overlay$folder" "$disk/work$folder"
    mount -t overlay -o "lowerdir=$folder,upperdir=$disk/overlay$folder,workdir=$disk/work$folder" overlay "$folder"
done
for folder in $private; do
    mkdir -p "$folder" "$disk/private$folder"
    mount --bind "$disk/private$folder" "$folder"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /run/openvswitch /run/programs /var/log/openvswitch /var/log/programs
mkdir -p "$disk/cgroup"
mount --rbind /sys/fs/cgroup "$disk/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$disk/cgroup" /sys/fs/cgroup
umount --lazy "$disk/cgroup"
mount --make-rshared /
echo ready
exec > /dev/null 2>&1
# Ended children of ended processes are reaped by nobody else; the kernel does so where SIGCHLD is ignored.
exec env --ignore-signal=CHLD sleep infinity
"""
"""Arguments: a folder on a disk, the host name, overlays, PRIVATE_FOLDERS. /sys is that of the network namespace."""
_START = 'echo $$ > "/run/programs/$0.pid"; exec "$@" >> "/var/log/programs/$0.log" 2>&1 < /dev/null'
_LOG_LINES = 15


@dataclass(slots=True)
class ClusterNode:
    """A node, with power or without: `start` and `kill`. Its disk survives, its memory and network do not."""

    name: str
    run: Run
    address: IPv4Address
    """Its InternalIP, and the address of its tunnels."""
    init: int = 0
    """Its first process; 0 while it has none."""
    _holder: subprocess.Popen[str] | None = None
    """The parent of its first process, which ends when that has ended and so all others of the node."""

    @property
    def netns(self) -> str:
        """Its network namespace."""
        return self.run.netns(self.name)

    @property
    def cgroup(self) -> str:
        """Its control group, in every hierarchy."""
        return self.run.cgroup(self.name)

    def create_network(self) -> None:
        """Create its network namespace. Raises SetupError."""
        self.run.ip_batch([f"netns add {self.netns}"])
        ip_batch(["link set lo up"], netns=self.netns)

    def remove_network(self) -> None:
        """Remove its network namespace, with the devices in it. Raises SetupError."""
        ip_batch([f"netns del {self.netns}"])

    def start(self) -> None:
        """Start its first process, in its network namespace. Raises SetupError."""
        disk = self.run.disk / self.name
        disk.mkdir(exist_ok=True)
        cgroups.create(self.cgroup)
        namespaces = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        script = ["sh", "-c", _PREPARE, "sh", str(disk), self.name, " ".join(_overlays()), " ".join(PRIVATE_FOLDERS)]
        process = subprocess.Popen(
            ["nsenter", f"--net={NETNS_FOLDER / self.netns}", "--", *namespaces, "--", *script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.run.record(process.pid)
        self._holder = process
        lines = []
        for line in process.stdout or ():
            lines.append(line.strip())
            if line == READY:
                break
        else:
            raise SetupError(f"node {self.name} cannot be started: {'; '.join(lines)}")
        self.init = _only_child(process.pid)
        self.run.record(self.init)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` in this node."""
        entered = ("--mount", "--uts", "--ipc", "--net", "--pid")
        return ["nsenter", f"--target={self.init}", *entered, "--", *argv]

    def execute(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The outcome of a command in this node, as text. Raises SetupError when it does not end."""
        try:
            return subprocess.run(
                self.inside(argv), input=stdin, capture_output=True, text=True, check=False, timeout=PROGRAM_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"`{' '.join(argv)}` did not end within {PROGRAM_SECONDS:.0f} s on {self.name}") from error

    def call(self, *argv: str, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
        """The output of a command in this node that must succeed. Raises SetupError."""
        return run(self.inside(argv), stdin=stdin, env=env)

    def path(self, path: str | Path) -> Path:
        """Where this machine finds a file of the node, while the node runs."""
        return Path(f"/proc/{self.init}/root{path}")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file of the node, with the folders that it needs."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=mode)
        target.write_text(text)

    # Programs that stay.

    def start_program(self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Start a program in the background; its log is /var/log/programs/NAME.log there. Raises SetupError."""
        # The shell leaves it to the node's first process, so that it is nobody's child here.
        run(self.inside(["setsid", "--fork", "sh", "-c", _START, name, *argv]), env=env)

    def program_pid(self, name: str) -> int | None:
        """The process id, in the node, of a program that was started; None when it has ended or was not."""
        try:
            pid = int(self.path(f"/run/programs/{name}.pid").read_text())
            state = self.path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            return None
        return None if state == "Z" else pid

    def kill_program(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a program that was started. Raises SetupError when it does not run."""
        pid = self.program_pid(name)
        if pid is None:
            raise SetupError(f"{name} does not run on {self.name}")
        self.call("kill", f"-{number.value}", str(pid))

    def log_tail(self, name: str) -> str:
        """The end of a program's log."""
        try:
            text = self.path(f"/var/log/programs/{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-_LOG_LINES:])

    def kill(self) -> None:
        """Take its power: every process of it ends, and what was only in memory is gone. Idempotent."""
        if self.init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
            self.init = 0
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None


def _overlays() -> tuple[str, ...]:
    """OVERLAYS, and the parent of MODULES where it is missing."""
    return OVERLAYS if MODULES.is_dir() else (*OVERLAYS, str(MODULES.parent.resolve()))


def _only_child(pid: int) -> int:
    """The one child of a process. Raises SetupError."""
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(words) != 1:
        raise SetupError("a node ended at once")
    return int(words[0])
