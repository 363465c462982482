"""Controls the processes inside pods (`agent/`): starts them, and makes them serve, probe and stream."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romana_ovs.model.errors import SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.runs import Run
from romana_ovs_emulate.system import NETNS_FOLDER

ANSWER_SECONDS = patience(10.0)
"""How long an agent may take to answer requests other than probes, in seconds."""
PROBE_SECONDS = min(patience(1.5), 5.0)
"""How long a probe waits for an answer before its path counts as closed, in seconds. Every closed path takes so long;
an open one answers within a second in an emulated processor, too."""
PROBE_MARGIN_SECONDS = patience(20.0)
"""How much longer than its time limit a probe may take on a loaded machine, in seconds."""

Target = tuple[str, int, str, str]
"""What to probe: address, port, protocol, and the name that should answer (empty: any)."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe: whether the expected pod answered, which one did, how fast, and why not."""

    open: bool
    name: str | None
    milliseconds: float
    detail: str


class AgentClient:
    """One pod's process. Several threads may use it."""

    def __init__(self, pod: PodKey, control: socket.socket, pid: int) -> None:
        self.pod = pod
        self.pid = pid
        self._control = control
        self._buffer = b""
        self._last_id = 0
        self._lock = threading.Lock()
        self._answers: dict[int, dict[str, Any]] = {}

    def serve(self, ports: Sequence[str]) -> Mapping[str, str]:
        """Serve exactly `ports` (`80/tcp`); the reasons of those that failed. Raises SetupError."""
        failed: Mapping[str, str] = self._request({"op": "serve", "ports": list(ports)})["failed"]
        return failed

    def probe(self, targets: Sequence[Target], *, seconds: float = PROBE_SECONDS) -> list[ProbeResult]:
        """The result of each target, in the order given; they are probed in parallel. Raises SetupError."""
        return self.finish_probe(self.start_probe(targets, seconds=seconds), seconds=seconds)

    def start_probe(self, targets: Sequence[Target], *, seconds: float = PROBE_SECONDS) -> int:
        """Start `probe`; returns the number that `finish_probe` takes. Raises SetupError."""
        return self._begin({"op": "probe", "targets": targets, "seconds": seconds})

    def finish_probe(self, number: int, *, seconds: float = PROBE_SECONDS) -> list[ProbeResult]:
        """The results of what `start_probe` started. Raises SetupError."""
        answer = self._end(number, seconds + PROBE_MARGIN_SECONDS)
        return [ProbeResult(**result) for result in answer["results"]]

    def stream(self, address: str, port: int, protocol: str = "tcp", *, push: bool = True) -> None:
        """Open a stream to a server of another pod; with `push` this end sends too. Raises SetupError."""
        self._request({"op": "stream", "address": address, "port": port, "protocol": protocol, "push": push})

    def streams(self) -> list[dict[str, Any]]:
        """All streams that end here: role, protocol, peer, received (bytes), last (monotonic s), error."""
        streams: list[dict[str, Any]] = self._request({"op": "streams"})["streams"]
        return streams

    def close_streams(self) -> None:
        """End all streams of this pod."""
        self._request({"op": "close_streams"})

    def close(self) -> None:
        """End the pod's process."""
        with self._lock:
            self._control.close()

    def _request(self, request: dict[str, object]) -> dict[str, Any]:
        return self._end(self._begin(request), ANSWER_SECONDS)

    def _begin(self, request: dict[str, object]) -> int:
        with self._lock:
            self._last_id += 1
            number = self._last_id
            try:
                self._control.settimeout(ANSWER_SECONDS)
                self._control.sendall(json.dumps({"id": number, **request}).encode() + b"\n")
            except OSError as error:
                raise SetupError(f"the process of pod {self.pod} has ended: {error}") from error
            return number

    def _end(self, number: int, seconds: float) -> dict[str, Any]:
        """The answer to request `number`; answers to other requests that arrive meanwhile are kept."""
        deadline = time.monotonic() + seconds
        with self._lock:
            while number not in self._answers:
                self._receive(deadline)
            answer = self._answers.pop(number)
        if "error" in answer:
            raise SetupError(f"pod {self.pod}: {answer['error']}")
        return answer

    def _receive(self, deadline: float) -> None:
        try:
            self._control.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._control.recv(1 << 20)
        except TimeoutError as error:
            raise SetupError(f"the process of pod {self.pod} does not answer") from error
        except OSError as error:
            raise SetupError(f"the process of pod {self.pod} has ended: {error}") from error
        if not data:
            raise SetupError(f"the process of pod {self.pod} has ended")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            self._answers[answer["id"]] = answer


class Zygote:
    """The process that forks agents (as Android's zygote forks apps). When its parent is killed, it removes the run."""

    def __init__(self, run: Run) -> None:
        """Starts it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", "romana_ovs_emulate.agent.zygote", str(theirs.fileno()), str(run.folder)]
        with theirs, (run.folder / "zygote.log").open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=child_environment(),
            )
        run.record(self._process.pid)
        self._run = run
        self._requests = ours
        self._lock = threading.Lock()

    def fork(self, pod: PodKey, netns: str, *, offloads_checksums: bool = False) -> AgentClient:
        """Start the agent of a pod in the named network namespace.

        `offloads_checksums`: its interface leaves checksums to who delivers the packets. Raises SetupError.
        """
        ours, theirs = socket.socketpair()
        place = {"pod": pod, "netns": str(NETNS_FOLDER / netns), "offloads_checksums": offloads_checksums}
        request = json.dumps(place).encode()
        try:
            with theirs, self._lock:
                socket.send_fds(self._requests, [request], [theirs.fileno()])
                answer = json.loads(self._requests.recv(65536) or b'{"error": "the process that forks pods has ended"}')
        except OSError as error:
            ours.close()
            raise SetupError(f"the process that forks pods has ended: {error}") from error
        if "error" in answer:
            ours.close()
            raise SetupError(f"pod {pod}: its process cannot run: {answer['error']}")
        self._run.record(answer["pid"])
        return AgentClient(pod, ours, answer["pid"])

    def close(self) -> None:
        """End it; call after `Run.close`, so that it finds nothing left to remove."""
        self._requests.close()
        self._process.wait()


def child_environment() -> dict[str, str]:
    """The environment of a Python child process, in which this package is imported from the same place."""
    here = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))}
