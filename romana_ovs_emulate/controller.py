"""Runs the controller as a child process and decodes the events of its status socket.

The socket carries one JSON object a line: `state` (the complete present state), `programmed` (a change of the
manifests is in every switch) and `refused` (a change that is invalid).
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.agent_client import child_environment
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.runs import Run

CONNECT_SECONDS = patience(20.0)
"""How long the controller may take to offer its status socket, in seconds."""
RETRY_SECONDS = 0.02
"""How often to try to connect, in seconds: a process cannot wait for a socket to exist."""
END_SECONDS = patience(5.0)
LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as the controller reports it; `flows` counts flows by kind, `address` may be empty.

    `sctp_ports`: whether its switch tracks SCTP by ports, None while that is not known.
    """

    connected: bool = False
    synced_generation: int = -1
    flows: Mapping[str, int] = field(default_factory=dict)
    address: str = ""
    sctp_ports: bool | None = None


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod as the controller reports it; `port` is its OpenFlow port once its interface exists, `uid` may be empty."""

    node: str
    address: str
    mac: str
    port: int | None = None
    uid: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The last state that the controller reported."""

    generation: int = -1
    nodes: Mapping[str, NodeState] = field(default_factory=dict)
    pods: Mapping[PodKey, PodState] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    packet_ins: int = 0
    pending: bool = False
    """Some changes wait until all switches have confirmed earlier ones."""

    def settled(self, nodes: Collection[str], *, failed: Collection[PodKey] = ()) -> bool:
        """Whether the switches of `nodes` have this generation, and every pod of theirs but the `failed` has a port."""
        known = (node for name, node in self.nodes.items() if name in nodes)
        synced = (node.connected and node.synced_generation >= self.generation for node in known)
        return (
            not self.pending
            and all(synced)
            and all(pod.port is not None for key, pod in self.pods.items() if pod.node in nodes and key not in failed)
        )


@dataclass(frozen=True, slots=True)
class Programmed:
    """A change is in every switch: how long after the file changed, and the flow messages that each node got."""

    generation: int
    milliseconds: float
    sent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """A change is invalid; the version before it stays in force."""

    problems: tuple[str, ...]


Event = State | Programmed | Refused


def parse_event(line: str | bytes) -> Event | None:
    """The event in one line, or None for a kind that this version does not know. Raises SetupError."""
    try:
        event = json.loads(line)
        kind = event["event"]
        if kind == "state":
            return _state(event)
        if kind == "programmed":
            return Programmed(event["generation"], event["milliseconds"], event.get("sent", {}))
        if kind == "refused":
            return Refused(_texts(event["problems"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupError(f"the controller sent an invalid event: {error!r} in {line!r}") from error
    return None


def _state(event: Mapping[str, Any]) -> State:
    return State(
        generation=event["generation"],
        nodes={
            name: NodeState(
                connected=bool(node.get("connected")),
                flows=node.get("flows") or {},
                synced_generation=-1 if node.get("synced_generation") is None else node["synced_generation"],
                address=node.get("address") or "",
                sctp_ports=node.get("sctp_ports"),
            )
            for name, node in event["nodes"].items()
        },
        pods={
            PodKey(key): PodState(pod["node"], pod["address"], pod["mac"], pod.get("port"), pod.get("uid") or "")
            for key, pod in event["pods"].items()
        },
        problems=_texts(event.get("problems", ())),
        refused=_texts(event.get("refused", ())),
        packet_ins=event.get("packet_ins", 0),
        pending=event.get("pending", False),
    )


def _texts(problems: Iterable[object]) -> tuple[str, ...]:
    return tuple(one if isinstance(one, str) else json.dumps(one) for one in problems)


@dataclass(frozen=True, slots=True)
class Options:
    """The options that the controller is started with; `settings` are further configuration files.

    `source` are the settings that name the source of its cluster. `nodes` is None when that source has the nodes.
    `datapath` is that of the nodes, None for the setting of the files.
    """

    source: Mapping[str, str]
    nodes: int | None
    state_file: Path
    settings: Sequence[Path] = ()
    datapath: DatapathType | None = None


class Controller:
    """The controller's process. It can be stopped and started again; switches keep forwarding meanwhile."""

    def __init__(self, run: Run, nodes: Sequence[Node], options: Options) -> None:
        self.socket = controller_socket(run)
        self._run = run
        self._status = run.folder / "status.sock"
        self._log = run.folder / "controller.log"
        self._config = run.folder / "controller.conf"
        self._settings = options.settings
        self._process: subprocess.Popen[bytes] | None = None
        self._config.write_text(_config(nodes, options, self._status))

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it. It is ready when `events` yields the first one."""
        for path in (self.socket, self._status):
            path.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "romana_ovs", "controller"]
        for path in (*self._settings, self._config):
            argv += ["--config-file", str(path)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, "--ofp-listen-host", str(self.socket)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=child_environment(),
            )
        self._run.record(self._process.pid)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """End it by this signal. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signum)
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def events(self) -> Iterator[Event]:
        """Its events, until it ends. Raises SetupError, with the end of its log, when it sends none."""
        with self._connect() as status, status.makefile("rb") as lines, contextlib.suppress(ConnectionResetError):
            for line in lines:
                event = parse_event(line)
                if event is not None:
                    yield event

    def log_tail(self) -> str:
        """The end of its log."""
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        except FileNotFoundError:
            return ""

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            status = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                status.connect(str(self._status))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                status.close()
                log = f"its log ends:\n{self.log_tail()}"
                if self.pid is None:
                    raise SetupError(f"the controller ended at once; {log}") from error
                if time.monotonic() > deadline:
                    reason = f"the controller has no status socket after {CONNECT_SECONDS:.0f} s"
                    raise SetupError(f"{reason}; {log}") from error
                time.sleep(RETRY_SECONDS)
            else:
                return status


def controller_socket(run: Run) -> Path:
    """Where the controller of a run listens for its switches."""
    return run.folder / "controller.sock"


def _config(nodes: Sequence[Node], options: Options, status: Path) -> str:
    """The configuration file that is added to the user's."""
    values = {
        **options.source,
        **({"nodes": options.nodes} if options.nodes is not None else {}),
        "ovsdb": ",".join(node.ovsdb for node in nodes),
        "state_file": options.state_file,
        "status_socket": status,
        **({"datapath": options.datapath.value} if options.datapath is not None else {}),
    }
    return "[romana]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
