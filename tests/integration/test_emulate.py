"""`romana-ovs emulate` as a user runs it: probes, live edits, refusals, several runs at once, the end of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from romana_ovs_emulate.runs import NETNS_PREFIX, RUNS_FOLDER
from romana_ovs_emulate.system import NETNS_FOLDER

pytestmark = pytest.mark.root

NINE_PODS = "".join(
    f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{pod: {name}}}}}
spec: {{containers: [{{name: c, image: i, ports: [{{containerPort: 80}}, {{containerPort: 81}}]}}]}}
"""
    for namespace in "xyz"
    for name in "abc"
)

INGRESS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: x}
spec:
  podSelector: {matchLabels: {pod: a}}
  ingress:
  - from: [{podSelector: {matchLabels: {pod: b}}}, {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]
    ports: [{port: 80}, {port: 81, protocol: UDP}, {port: 81, protocol: SCTP}]
"""

EGRESS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: quiet, namespace: z}
spec:
  podSelector: {matchLabels: {pod: c}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "romana.conf").write_text("[romana]\nisolation = none\n")
    (tmp_path / "pods.yaml").write_text(NINE_PODS)
    (tmp_path / "policies.yaml").write_text(INGRESS + "---" + EGRESS)
    return tmp_path


def emulate(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "romana_ovs", "emulate", str(folder), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("options", [("--nodes", "3"), ("--nodes", "3", "--fabric", "vxlan")])
def test_nine_pods_by_six_ports_are_as_expected_and_quick(folder: Path, options: tuple[str, ...]) -> None:
    ports = "80/tcp,81/tcp,80/udp,81/udp,80/sctp,81/sctp"
    began = time.monotonic()
    process = emulate(folder, "--probe", ports, "--json", *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err + out[-2000:]
    assert time.monotonic() - began < 30
    result = json.loads(out)
    assert result["differences"] == []
    assert result["measured"] == result["expected"]
    assert len(result["measured"]["pods"]) == 9
    counts = {port: len(pairs) for port, pairs in result["measured"]["allowed"].items()}
    # 72 pairs; x/a accepts 4 of its 8 clients on three ports, z/c reaches only 2 on 80/tcp and x/a refuses it too.
    assert counts["80/tcp"] == 72 - 4 - 5
    assert counts["81/tcp"] == 72 - 8 - 7
    assert counts["81/sctp"] == counts["81/udp"] == 72 - 4 - 7


class Talk:
    """A running `emulate` with its prompt: lines in, lines out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: Queue[str] = Queue()
        self.said: list[str] = []
        self.threads = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for thread in self.threads:
            thread.start()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            self.lines.put(line.rstrip("\n"))

    def ask(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def until(self, words: str, seconds: float = 30) -> str:
        """The first line from now on that has `words` in it."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self.lines.get(timeout=left)
            except Empty:
                break
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"{words!r} was not said: {self.said}")

    def end(self) -> int:
        self.ask("exit")
        return self.process.wait(30)


@pytest.fixture
def start() -> Iterator[Callable[..., Talk]]:
    talks: list[Talk] = []

    def begin(folder: Path, *options: str) -> Talk:
        talk = Talk(emulate(folder, *options))
        talks.append(talk)
        talk.until("help lists")
        return talk

    yield begin
    for talk in talks:
        talk.process.terminate()
        talk.process.wait(30)
        for thread in talk.threads:
            thread.join()
        for stream in (talk.process.stdin, talk.process.stdout, talk.process.stderr):
            if stream is not None:
                stream.close()


def test_edits_apply_live_and_say_what_they_did(folder: Path, start: Callable[..., Talk]) -> None:
    talk = start(folder)
    talk.ask("y/b curl x/a")
    talk.until("x/a")
    talk.ask("z/b curl x/a:81")
    talk.until("curl: x/a:81")
    (folder / "policies.yaml").write_text(EGRESS)
    talk.until("programmed in")
    talk.until("opened: z/b -> x/a 81/tcp")
    talk.ask("z/b curl x/a:81")
    talk.until("x/a")
    (folder / "policies.yaml").write_text(EGRESS.replace("port: 80", "port: 80000"))
    assert "policies.yaml" in talk.until("refused:")
    talk.until("the last valid version stays in force")
    talk.ask("z/c curl z/a:81")
    talk.until("curl: z/a:81", 10)
    (folder / "more.yaml").write_text(NINE_PODS.split("---")[1].replace("name: a", "name: d"))
    talk.until("opened: x/a -> x/d 80/tcp")
    talk.ask("x/a curl x/d")
    talk.until("x/d")
    (folder / "more.yaml").unlink()
    talk.until("closed: x/a -> x/d 80/tcp")
    talk.ask("pods")
    talk.until("z/c")
    assert talk.end() == 0


def test_the_prompt_reaches_pods_nodes_and_switches(folder: Path, start: Callable[..., Talk]) -> None:
    talk = start(folder)
    talk.ask("node1 ping x/a")
    talk.until(" 0% packet loss")
    talk.ask("node2 ping x/a")
    talk.until(" 100% packet loss")
    talk.ask("node2 ping z/a")
    talk.until(" 0% packet loss")
    talk.ask("z/b ping x/a")
    talk.until(" 100% packet loss")
    assert not [line for line in talk.said if "DUP!" in line], "packets must not reach nodes past the bridge"
    talk.ask("y/a ip -4 -o addr show dev eth0")
    talk.until("inet 10.")
    talk.ask("nodes")
    command = talk.until("node2: ovs-ofctl -O OpenFlow15 dump-flows unix:").partition(": ")[2]
    shown = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    assert "actions=" in shown
    assert "NORMAL" not in shown
    talk.ask("matrix 80/tcp,81/udp")
    talk.until("exactly what the reference evaluation expects")
    assert talk.end() == 0


def test_two_runs_at_once_do_not_collide(folder: Path, start: Callable[..., Talk]) -> None:
    first, second = start(folder), start(folder)
    for talk in (first, second):
        talk.ask("y/b curl x/b")
        talk.until("x/b")
    assert first.end() == 0
    second.ask("x/c curl y/b")
    second.until("y/b")
    assert second.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_stays(folder: Path, start: Callable[..., Talk], number: signal.Signals) -> None:
    talk = start(folder)
    talk.ask("nodes")
    run = talk.until("unix:").partition(str(RUNS_FOLDER) + "/")[2].partition("/")[0]
    controller = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and run_of(int(pid), run)]
    assert len(controller) >= 1 + 2 * 2
    talk.ask("x/a sleep 100")
    talk.process.send_signal(number)
    deadline = time.monotonic() + 20
    while (RUNS_FOLDER / run).exists() and time.monotonic() < deadline:
        if number == signal.SIGINT:
            talk.process.send_signal(number)
        time.sleep(0.2)
    assert not (RUNS_FOLDER / run).exists()
    assert not list(NETNS_FOLDER.glob(f"{NETNS_PREFIX}{run}-*"))
    assert not [pid for pid in controller if run_of(pid, run)]


def run_of(pid: int, run: str) -> bool:
    """Whether the process is one of this run's daemons, by its command line."""
    try:
        return f"/{run}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_is_missing_is_said_in_a_sentence(tmp_path: Path) -> None:
    for words, folder, options in (
        ("holds no pod", tmp_path, ()),
        ("is not a port", tmp_path, ("--probe", "http")),
        ("no port is given", tmp_path, ("--probe", "")),
        ("must be at least 1", tmp_path, ("--nodes", "0")),
    ):
        (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: x}}")
        process = emulate(folder, *options)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (2, "")
        assert words in err
        assert "Traceback" not in err
