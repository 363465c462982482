"""`romana-ovs emulate` as a user runs it: probes, live edits, refusals, several runs at once, the end of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.runs import NETNS_PREFIX, RUNS_FOLDER
from romana_ovs_emulate.system import NETNS_FOLDER
from tests.support.command import Prompt, prompts, run_command
from tests.support.datapath import datapath_type

pytestmark = pytest.mark.root

NINE_PODS = "".join(
    f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: "{namespace}", labels: {{pod: {name}}}}}
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
  - from:
    - podSelector: {matchLabels: {pod: b}}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: 'y'}}
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


@pytest.mark.parametrize("options", [("--nodes", "3"), ("--nodes", "3", "--fabric", "vxlan")])
def test_nine_pods_by_six_ports_are_as_expected_and_quick(folder: Path, options: tuple[str, ...]) -> None:
    ports = "80/tcp,81/tcp,80/udp,81/udp,80/sctp,81/sctp"
    began = time.monotonic()
    done = run_command("emulate", str(folder), "--probe", ports, "--json", *options, seconds=120)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert time.monotonic() - began < patience(30)
    result = json.loads(done.stdout)
    assert result["differences"] == []
    assert result["measured"] == result["expected"]
    assert result["datapath"] == datapath_type().value
    assert len(result["measured"]["pods"]) == 9
    counts = {port: len(pairs) for port, pairs in result["measured"]["allowed"].items()}
    # 72 pairs; x/a accepts 4 of its 8 clients on three ports, z/c reaches only 2 on 80/tcp and x/a refuses it too.
    assert counts["80/tcp"] == 72 - 4 - 5
    assert counts["81/tcp"] == 72 - 8 - 7
    assert counts["81/sctp"] == counts["81/udp"] == 72 - 4 - 7


@pytest.fixture
def start() -> Iterator[Callable[..., Prompt]]:
    with prompts() as start:
        yield start


def test_edits_apply_live_and_say_what_they_did(folder: Path, start: Callable[..., Prompt]) -> None:
    prompt = start(str(folder))
    prompt.ask("y/b curl x/a")
    prompt.until("x/a")
    prompt.ask("z/b curl x/a:81")
    prompt.until("curl: x/a:81")
    (folder / "policies.yaml").write_text(EGRESS)
    prompt.until("programmed in")
    prompt.until("opened: z/b -> x/a 81/tcp")
    prompt.ask("z/b curl x/a:81")
    prompt.until("x/a")
    (folder / "policies.yaml").write_text(EGRESS.replace("port: 80", "port: 80000"))
    assert "policies.yaml" in prompt.until("refused:")
    prompt.until("the last valid version stays in force")
    prompt.ask("z/c curl z/a:81")
    prompt.until("curl: z/a:81", 10)
    (folder / "more.yaml").write_text(NINE_PODS.split("---")[1].replace("name: a", "name: d"))
    prompt.until("opened: x/a -> x/d 80/tcp")
    prompt.ask("x/a curl x/d")
    prompt.until("x/d")
    (folder / "more.yaml").unlink()
    prompt.until("closed: x/a -> x/d 80/tcp")
    prompt.ask("pods")
    prompt.until("z/c")
    assert prompt.end() == 0


def test_the_prompt_reaches_pods_nodes_and_switches(folder: Path, start: Callable[..., Prompt]) -> None:
    prompt = start(str(folder))
    prompt.ask("node1 ping x/a")
    prompt.until(" 0% packet loss")
    prompt.ask("node2 ping x/a")
    prompt.until(" 100% packet loss")
    prompt.ask("node2 ping z/a")
    prompt.until(" 0% packet loss")
    prompt.ask("z/b ping x/a")
    prompt.until(" 100% packet loss")
    assert not [line for line in prompt.said if "DUP!" in line], "packets must not reach nodes past the bridge"
    prompt.ask("y/a ip -4 -o addr show dev eth0")
    prompt.until("inet 10.")
    prompt.ask("nodes")
    command = prompt.until("node2: ovs-ofctl -O OpenFlow15 dump-flows unix:").partition(": ")[2]
    shown = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    assert "actions=" in shown
    assert "NORMAL" not in shown
    prompt.ask("matrix 80/tcp,81/udp")
    prompt.until("exactly what the reference evaluation expects")
    assert prompt.end() == 0


def test_two_runs_at_once_do_not_collide(folder: Path, start: Callable[..., Prompt]) -> None:
    first, second = start(str(folder)), start(str(folder))
    for prompt in (first, second):
        prompt.ask("y/b curl x/b")
        prompt.until("x/b")
    assert first.end() == 0
    second.ask("x/c curl y/b")
    second.until("y/b")
    assert second.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_stays(folder: Path, start: Callable[..., Prompt], number: signal.Signals) -> None:
    prompt = start(str(folder))
    prompt.ask("nodes")
    run = prompt.until("unix:").partition(str(RUNS_FOLDER) + "/")[2].partition("/")[0]
    controller = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and run_of(int(pid), run)]
    assert len(controller) >= 1 + 2 * 2
    prompt.ask("x/a sleep 100")
    prompt.process.send_signal(number)
    deadline = time.monotonic() + 20
    while (RUNS_FOLDER / run).exists() and time.monotonic() < deadline:
        if number == signal.SIGINT:
            prompt.process.send_signal(number)
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
        (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")
        done = run_command("emulate", str(folder), *options, seconds=30)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
