"""Checks that this machine can emulate, and runs commands on it: `ip` batches, commands in network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.netns import enter
from romana_ovs_emulate.patience import patience

T = TypeVar("T")

NETNS_FOLDER = Path("/run/netns")
"""Where iproute2 keeps named network namespaces (ip-netns(8))."""
SCHEMA = Path("share/openvswitch/vswitch.ovsschema")
"""The schema of Open vSwitch's database, below the prefix that Open vSwitch is installed in."""
DISTRIBUTION_PREFIX = Path("/usr")
PROGRAMS = ("ip", "nsenter", "ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")
COMMAND_SECONDS = patience(30.0)
"""How long one command may take, in seconds."""


def require_machine() -> None:
    """Check that an emulated cluster can run here. Raises SetupError with the first missing requirement."""
    if os.geteuid() != 0:
        raise SetupError("an emulated cluster needs root (network namespaces, Open vSwitch): run it with sudo")
    for program in PROGRAMS:
        if shutil.which(program) is None:
            package = "openvswitch-switch" if program.startswith("ovs") else "iproute2 and util-linux"
            raise SetupError(f"an emulated cluster needs the program {program}: install {package}")
    if not (schema := ovs_schema()).exists():
        raise SetupError(f"an emulated cluster needs {schema}: install openvswitch-switch")


def ovs_schema() -> Path:
    """The schema of the Open vSwitch in the PATH: in the prefix of its programs if it is there, else in /usr.

    So an Open vSwitch that was built from source in /usr/local, or anywhere else, has its own.
    """
    if program := shutil.which("ovs-vswitchd"):
        # The folder is resolved, not the file: /sbin may be a link to /usr/sbin; Debian's program is one to elsewhere.
        beside = Path(program).parent.resolve().parent / SCHEMA
        if beside.exists():
            return beside
    return DISTRIBUTION_PREFIX / SCHEMA


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    keep_open: IO[str] | None = None,
) -> str:
    """The standard output of a command that must succeed.

    `env` is added to this process's environment; the file `keep_open` stays open while the command runs.
    Raises SetupError with the command and its error output.
    """
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(env or {})},
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            start_new_session=True,
            pass_fds=() if keep_open is None else (keep_open.fileno(),),
        )
    except FileNotFoundError as error:
        raise SetupError(f"the program {argv[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"`{' '.join(argv)}` did not end within {COMMAND_SECONDS:.0f} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").replace("\n", "; ")
        raise SetupError(f"`{' '.join(argv)}` failed: {words}")
    return done.stdout


def ip_batch(lines: Iterable[str], *, netns: str | None = None, keep_open: IO[str] | None = None) -> None:
    """Run `ip` commands in one process, inside the named namespace when given; nothing for no lines.

    The file `keep_open` stays open meanwhile, even if this process is killed. Raises SetupError when one fails; ip
    stops there.
    """
    text = "".join(f"{line}\n" for line in lines)
    if text:
        run(["ip", *(["-n", netns] if netns else []), "-batch", "-"], stdin=text, keep_open=keep_open)


def inside(netns: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in the named network namespace; it execs, so the process id stays."""
    return ["nsenter", f"--net={NETNS_FOLDER / netns}", "--", *argv]


def in_netns(netns: str, work: Callable[[], T]) -> T:
    """What `work` returns inside the named network namespace, in a thread of its own.

    Raises what it raises, and SetupError when the namespace does not exist.
    """

    def moved() -> T:
        try:
            enter(str(NETNS_FOLDER / netns))
        except OSError as error:
            raise SetupError(f"the network namespace {netns} cannot be entered: {error.strerror}") from error
        return work()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(moved).result()
