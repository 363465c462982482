"""Starts emulated nodes: each is a private Open vSwitch instance in a network namespace of its own.

The OpenFlow channel crosses namespaces over a unix socket. Open vSwitch connects only to sockets in its own
run directory ("due to possibility for remote exploit"), but follows a symbolic link in there, whether the
controller is given as `unix:<rundir>/controller.sock` or as `unix:controller.sock` (seen on 3.1.0). So each
node's run directory holds a link to the one socket on which the controller listens; its target may be missing
until the controller is up. A node puts nothing into the machine's own namespace.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from romana_ovs.model.bridge import NODE_ID, DatapathType
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.runs import Run, short
from romana_ovs_emulate.system import inside, ip_batch, ovs_schema, run

LOG = logging.getLogger("romana_ovs.emulate")

BRIDGE = "br-int"
UNDERLAY_BRIDGE = "br-phy"
"""The bridge on which a node of the userspace datapath has its underlay address, where the fabric has tunnels."""
UNDERLAY = IPv4Network("172.31.0.0/16")
"""The range of tunnel addresses."""
FRAGMENT_MEMORY, FRAGMENT_BYTES = "net.ipv4.ipfrag_high_thresh", 24_028_800
"""What the kernel's datapath takes for unfinished datagrams of a node, in bytes: 5,283 first fragments. A tenant may
keep 3,200 there by default (`tenant_fragments`, docs/cli.md)."""
VSCTL_SECONDS = patience(20.0)
ADDRESS_SECONDS = patience(5.0)
"""How long a switch may take to learn of a new address."""
RETRY_SECONDS = 0.05
NICENESS = -5
"""The priority of an emulated node's switch, as nice(1) counts."""
BACKOFF_MS = 1000
"""The longest pause before a bridge reconnects to the controller, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Node:
    """One emulated node; `start_node` starts it."""

    name: str
    netns: str
    folder: Path
    run: Run
    datapath: DatapathType

    @property
    def ovsdb(self) -> str:
        """Where its Open vSwitch database listens, as Open vSwitch writes connections."""
        return f"unix:{self.folder}/db.sock"

    @property
    def management(self) -> str:
        """Where `ovs-ofctl` reaches its bridge."""
        return f"unix:{self.folder}/{BRIDGE}.mgmt"

    @property
    def dump_flows(self) -> str:
        """The exact command line that shows its flows."""
        return f"ovs-ofctl -O OpenFlow15 dump-flows {self.management}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment by which Open vSwitch's programs use this node's folder."""
        folder = str(self.folder)
        return {"OVS_RUNDIR": folder, "OVS_LOGDIR": folder, "OVS_DBDIR": folder}

    def vsctl(self, *arguments: str) -> str:
        """The output of `ovs-vsctl` on this node, which waits until the switch is reconfigured. Raises SetupError."""
        argv = ["ovs-vsctl", f"--db={self.ovsdb}", f"--timeout={VSCTL_SECONDS:.0f}", *arguments]
        return run(argv, env=self.environment)

    def ofctl(self, command: str, *arguments: str, stdin: str | None = None) -> str:
        """The output of an `ovs-ofctl` command on its bridge. Raises SetupError."""
        argv = ["ovs-ofctl", "-O", "OpenFlow15", command, self.management, *arguments]
        return run(argv, env=self.environment, stdin=stdin)

    def appctl(self, *arguments: str) -> str:
        """The output of an `ovs-appctl` command to its switch process. Raises SetupError."""
        return run(["ovs-appctl", "-t", "ovs-vswitchd", *arguments], env=self.environment)

    def execute(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """The outcome of a command in the node's namespace, with its output as text."""
        return subprocess.run(inside(self.netns, argv), capture_output=True, text=True, check=False)

    def switch_pid(self) -> int:
        """The process id of its ovs-vswitchd. Raises FileNotFoundError when it never started."""
        return int((self.folder / "ovs-vswitchd.pid").read_text())

    def start_switch(self) -> None:
        """Start ovs-vswitchd, for the first time or after it was killed.

        Returns when it is ready. Raises SetupError.
        """
        if self.datapath is DatapathType.SYSTEM:
            self._daemon("ovs-vswitchd", self.ovsdb, prefix=("nice", "-n", str(NICENESS)))
            return
        # The userspace datapath looks up the routes of tunnels by itself. It re-reads the kernel's routes whenever a
        # link changes, so with every pod, and has none for 5 to 15 ms: tunnelled packets are lost (seen with
        # Open vSwitch
        # 3.1.0). So it is started without the kernel's routes, and the one route that it needs is added by hand.
        self._daemon("ovs-vswitchd", self.ovsdb, "--disable-system-route", prefix=("nice", "-n", str(NICENESS)))
        if UNDERLAY_BRIDGE in self.vsctl("--no-wait", "list-br").split():
            self.route_underlay()

    def route_underlay(self) -> None:
        """Add the route to the other ends of tunnels to its switch. Raises SetupError."""
        retry_route(lambda: self.appctl("ovs/route/add", str(UNDERLAY), UNDERLAY_BRIDGE))

    def _daemon(self, program: str, *arguments: str, prefix: Sequence[str] = ()) -> None:
        pidfile = self.folder / f"{program}.pid"
        argv = [
            *prefix,
            program,
            *arguments,
            f"--pidfile={pidfile}",
            "--detach",
            "--no-chdir",
            f"--log-file={self.folder}/{program}.log",
            "-vconsole:off",
        ]
        run(inside(self.netns, argv), env=self.environment)
        self.run.record(int(pidfile.read_text()))


def start_node(owner: Run, name: str, *, controller: Path, datapath: DatapathType) -> Node:
    """Start a node with an empty bridge, which is created with fail_mode=secure and out-of-band control.

    `controller` is the socket that the controller listens on, now or later. Raises SetupError.
    """
    node = Node(name, owner.netns(name), owner.folder / short(name), owner, datapath)
    node.folder.mkdir()
    (node.folder / "controller.sock").symlink_to(controller)
    owner.ip_batch([f"netns add {node.netns}"])
    rules = rules_to_ignore_ports() if datapath is DatapathType.NETDEV else []
    ip_batch(["link set lo up", *rules], netns=node.netns)
    if datapath is DatapathType.SYSTEM:
        _set_fragment_memory(node)
    database = str(node.folder / "conf.db")
    run(["ovsdb-tool", "create", database, str(ovs_schema())])
    node._daemon("ovsdb-server", database, f"--remote=p{node.ovsdb}")
    node.vsctl("--no-wait", "init")
    node.start_switch()
    node.vsctl(*bridge_commands(name, f"unix:{node.folder}/controller.sock", datapath))
    return node


def _set_fragment_memory(node: Node) -> None:
    """Give a node of the kernel's datapath more memory for fragments than a tenant may take, if it can be set."""
    done = node.execute(["sysctl", "-q", "-w", f"{FRAGMENT_MEMORY}={FRAGMENT_BYTES}"])
    if done.returncode != 0:
        LOG.warning("node %s keeps its %s: %s", node.name, FRAGMENT_MEMORY, " ".join(done.stderr.split()))


def rules_to_ignore_ports() -> list[str]:
    """The `ip` commands by which a node's kernel accepts packets on its bridges only, not on their ports.

    With the userspace datapath the kernel, too, receives what comes in at a port. It would answer ARP and more for the
    node's own addresses: pods and their node would reach each other past the bridge.
    """
    bridges = ("lo", BRIDGE, UNDERLAY_BRIDGE)
    return [
        *(f"rule add pref {number} iif {name} lookup local" for number, name in enumerate(bridges, start=1)),
        "rule del pref 0",
    ]


def retry_route(add: Callable[[], object]) -> None:
    """Call `add`, which adds a route to a switch, until it succeeds. Raises what it raises after ADDRESS_SECONDS.

    A switch refuses a route while it does not know an address for it. It may learn of a new one some time later only,
    from the kernel's notification (netdev_get_addrs in netdev.c of Open vSwitch).
    """
    limit = time.monotonic() + ADDRESS_SECONDS
    while True:
        try:
            add()
        except SetupError:
            if time.monotonic() > limit:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


def bridge_commands(node: str, target: str, datapath: DatapathType) -> list[str]:
    """The `ovs-vsctl` arguments that create a node's bridge in one transaction.

    Secure, so that it never forwards without flows, and out-of-band, so that no hidden flows precede ours
    (vswitchd.conf.db(5)). A controller of type `service` deletes no flows when it is configured, as at the end of
    flow-restore-wait. The datapath id is set, as otherwise it follows the bridge's MAC, which changes once the node
    has an address: the switch would reconnect with another datapath id.
    """
    return [
        "add-br",
        BRIDGE,
        "--",
        "set",
        "bridge",
        BRIDGE,
        f"datapath_type={datapath.value}",
        "fail_mode=secure",
        "protocols=OpenFlow15",
        "other_config:disable-in-band=true",
        f"other_config:datapath-id={datapath_id(node)}",
        f"external_ids:{NODE_ID}={node}",
        "--",
        "set-controller",
        BRIDGE,
        target,
        "--",
        "set",
        "controller",
        BRIDGE,
        "connection_mode=out-of-band",
        "type=service",
        f"max_backoff={BACKOFF_MS}",
    ]


def datapath_id(node: str) -> str:
    """The datapath id of a node's bridge: 16 hexadecimal digits, the same in every run."""
    return hashlib.sha256(node.encode()).hexdigest()[:16]
