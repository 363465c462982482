"""A node as a container runtime sees it: an Open vSwitch, a controller, the attach agent, and the CNI plugin to run.

The node has a network namespace of its own, in which switch and agent run, and pods have theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from romana_ovs_emulate.cni_plugin import find_or_build, unavailable_reason
from romana_ovs_emulate.system import NETNS_FOLDER, inside
from tests.support.controller_process import ROOT, Controller
from tests.support.manifests import TWO_NODES, placed_pod
from tests.support.netns_sockets import run
from tests.support.private_ovs import Ovs
from tests.support.waiting import PATIENCE, eventually

needs_plugin = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "-")
BRIDGE = "br-int"
EMPTY = {"cniVersion": "1.1.0", "interfaces": [], "ips": [], "routes": []}


@dataclass(frozen=True)
class Answer:
    """What a run of the plugin ended with: exit code, and the object that it printed (empty for nothing)."""

    exit_code: int
    printed: dict[str, Any]

    @property
    def code(self) -> int:
        """The code of the error; 0 after a success."""
        if self.exit_code == 0:
            return 0
        return int(self.printed["code"])

    @property
    def address(self) -> str:
        """The address of the result, without its prefix length."""
        (ip,) = self.printed["ips"]
        return str(ip["address"]).removesuffix("/32")


@dataclass(frozen=True)
class Sandbox:
    """A pod's sandbox: the pod's name and UID, container id, and network namespace (empty: none)."""

    pod: str
    uid: str
    container: str
    netns: str

    @property
    def path(self) -> str:
        """CNI_NETNS."""
        return str(NETNS_FOLDER / self.netns) if self.netns else ""

    @property
    def args(self) -> str:
        """CNI_ARGS as containerd writes them."""
        namespace, _, name = self.pod.partition("/")
        return (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};"
            f"K8S_POD_INFRA_CONTAINER_ID={self.container};K8S_POD_UID={self.uid}"
        )


@dataclass
class CniNode:
    """Context manager: node1, without a controller or agent until they are started."""

    plugin: Path = field(default_factory=lambda: find_or_build(print))
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rcni-")))
    name: str = field(default_factory=lambda: f"cni-{os.getpid()}-{secrets.token_hex(2)}")
    agent: subprocess.Popen[bytes] | None = None
    made: set[str] = field(default_factory=set)
    host_check: bool = False

    def __enter__(self) -> CniNode:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(self._delete_namespaces)
            self.make_netns(self.name)
            run(self.name, "ip", "link", "set", "lo", "up")
            self.ovs = stack.enter_context(Ovs(netns=self.name))
            self.controller = stack.enter_context(Controller((self.ovs.remote,)))
            self.controller.write("nodes.yaml", TWO_NODES)
            self.ovs.bridge(BRIDGE, node="node1", controller=self.controller.openflow)
            stack.callback(self.stop_agent, signal.SIGKILL)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # Processes.

    @property
    def socket(self) -> Path:
        """The agent's socket."""
        return self.folder / "attach.sock"

    @property
    def queue(self) -> Path:
        """Where the plugin leaves DELs."""
        return self.folder / "queue"

    @property
    def conf_folder(self) -> Path:
        """Where the agent writes the configuration list."""
        return self.folder / "net.d"

    @property
    def agent_log(self) -> str:
        """What the agent has logged."""
        path = self.folder / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def agent_command(self, *options: str) -> list[str]:
        """The command of the agent in the node's namespace."""
        places = ["--socket", str(self.socket), "--queue", str(self.queue), "--cni-conf-dir", str(self.conf_folder)]
        words = [sys.executable, "-m", "romana_ovs", "attach", "--ovsdb", self.ovs.remote, *places, "--mtu", "1400"]
        return inside(self.name, [*words, *([] if self.host_check else ["--no-host-check"]), *options])

    def start_agent(self, *options: str) -> None:
        """Start the agent; returns when it serves."""
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(self.agent_command(*options), stdout=log, stderr=log, cwd=ROOT)
        before = self.agent_log.count("serving ")
        eventually(lambda: self.agent_log.count("serving ") > before or self._agent_ended(), "the agent serves")
        assert not self._agent_ended(), self.agent_log

    def _agent_ended(self) -> bool:
        return self.agent is not None and self.agent.poll() is not None

    def stop_agent(self, number: int = signal.SIGTERM) -> int | None:
        """End the agent, if it runs; returns its exit status."""
        if self.agent is None:
            return None
        self.agent.send_signal(number)
        status = self.agent.wait(PATIENCE)
        self.agent = None
        return status

    def start(self, *pods: str, uid: str = "") -> None:
        """Start a controller with these pods of namespace a on node1, and the agent; returns when ADD can be served.

        The UID of each is its name and `-1`, unless one is given.
        """
        for pod in pods:
            self.write_pod(pod, uid or f"{pod}-1")
        self.controller.start()
        self.start_agent()
        self.until_ready()

    def until_ready(self) -> None:
        """Wait until STATUS succeeds."""
        eventually(lambda: self.call("STATUS").code == 0, f"STATUS succeeds; {self.agent_log[-2000:]}")

    def write_pod(self, name: str, uid: str) -> None:
        """Write the manifest of pod a/NAME on node1."""
        self.controller.write(f"{name}.yaml", placed_pod(name, uid=uid))

    # What a runtime does.

    def sandbox(self, name: str, *, uid: str | None = None, container: str = "") -> Sandbox:
        """A sandbox of pod a/NAME with a network namespace of its own."""
        container = container or secrets.token_hex(32)
        netns = f"cni-{container[:12]}"
        self.make_netns(netns)
        return Sandbox(f"a/{name}", f"{name}-1" if uid is None else uid, container, netns)

    def make_netns(self, name: str) -> None:
        """Make a network namespace, which is deleted at the end."""
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.made.add(name)

    def delete_netns(self, name: str) -> None:
        """Delete a network namespace."""
        subprocess.run(["ip", "netns", "del", name], check=True)
        self.made.discard(name)

    def config(self, **changes: Any) -> dict[str, Any]:
        """The network configuration that a runtime passes to the plugin."""
        usual = {
            "cniVersion": "1.1.0",
            "name": "romana-ovs",
            "type": "romana-cni",
            "socket": str(self.socket),
            "queue": str(self.queue),
        }
        return {name: value for name, value in {**usual, **changes}.items() if value is not None}

    def variables(self, command: str, sandbox: Sandbox | None, **changes: str | None) -> dict[str, str]:
        """The environment of the plugin."""
        variables: dict[str, str | None] = {"CNI_COMMAND": command, "CNI_PATH": str(self.plugin.parent)}
        if sandbox is not None:
            variables |= {
                "CNI_CONTAINERID": sandbox.container,
                "CNI_NETNS": sandbox.path,
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": sandbox.args,
            }
        return {name: text for name, text in {**os.environ, **variables, **changes}.items() if text is not None}

    def call(
        self,
        command: str,
        sandbox: Sandbox | None = None,
        config: dict[str, Any] | None = None,
        /,
        stdin: str | None = None,
        **changes: str | None,
    ) -> Answer:
        """Run the plugin as a runtime does; `changes` are those of its environment."""
        done = subprocess.run(
            [self.plugin],
            env=self.variables(command, sandbox, **changes),
            input=stdin if stdin is not None else json.dumps(config or self.config()),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Answer(done.returncode, json.loads(done.stdout) if done.stdout.strip() else {})

    def add(self, sandbox: Sandbox) -> Answer:
        """ADD, which must succeed."""
        answer = self.call("ADD", sandbox)
        assert answer.code == 0, f"{answer.printed}; agent: {self.agent_log[-3000:]}; {self.controller.log[-1000:]}"
        return answer

    def delete(self, sandbox: Sandbox, **changes: str | None) -> None:
        """DEL, which must succeed."""
        answer = self.call("DEL", sandbox, **changes)
        assert answer.exit_code == 0 and answer.printed == {}, (answer, self.agent_log[-3000:])

    def add_all(self, sandboxes: Sequence[Sandbox]) -> list[Answer]:
        """ADD of all at once."""
        with ThreadPoolExecutor(len(sandboxes)) as pool:
            return list(pool.map(self.add, sandboxes))

    def delete_all(self, sandboxes: Sequence[Sandbox]) -> None:
        """DEL of all at once."""
        with ThreadPoolExecutor(len(sandboxes)) as pool:
            list(pool.map(self.delete, sandboxes))

    # What is there.

    def devices(self) -> list[str]:
        """The devices of pods on the node's side."""
        shown = json.loads(run(self.name, "ip", "-j", "link", "show").stdout)
        return sorted(each["ifname"] for each in shown if each["ifname"].startswith("rp"))

    def ports(self) -> dict[str, dict[str, str]]:
        """The external_ids of each port of a pod, by name."""
        words = ["--format=json", "--columns=name,external_ids", "list", "interface"]
        rows = json.loads(self.ovs.vsctl(*words))["data"]
        return {name: dict(pairs) for name, (_, pairs) in rows if "iface-id" in dict(pairs)}

    def port_of(self, sandbox: Sandbox) -> str:
        """The name of a sandbox's only port."""
        (name,) = [name for name, ids in self.ports().items() if ids.get("sandbox") == sandbox.container]
        return name

    def assert_nothing_left(self) -> None:
        """No ports, devices, flows of pods' ports, or queued DELs."""
        eventually(lambda: not self.ports() and not self.devices(), f"all is gone; {self.agent_log[-2000:]}")
        assert not self.queue.exists() or not list(self.queue.iterdir())
        if self.controller.process is not None:
            eventually(lambda: not any("in_port=" in flow for flow in self._pod_flows()), "no flows are left")

    def _pod_flows(self) -> list[str]:
        return [flow for flow in self.ovs.flows(BRIDGE) if "in_port=" in flow and "in_port=LOCAL" not in flow]

    def _delete_namespaces(self) -> None:
        for name in tuple(self.made):
            self.delete_netns(name)


@contextlib.contextmanager
def cni_node(*pods: str) -> Iterator[CniNode]:
    """A node that serves, with a controller that knows these pods of namespace a."""
    with CniNode() as node:
        node.start(*pods)
        yield node
