"""Runs an emulated cluster: nodes, fabric, controller, and a kubelet that runs the pods the controller reports."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import RomanaError, SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.agent_client import Zygote
from romana_ovs_emulate.controller import Controller, Event, Options, Programmed, State, controller_socket
from romana_ovs_emulate.datapath import choose_datapath
from romana_ovs_emulate.fabric import Fabric, join
from romana_ovs_emulate.failures import RETRY_SECONDS, Failures
from romana_ovs_emulate.next_hop import next_hop_commands
from romana_ovs_emulate.nodes import BRIDGE, Node, start_node
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.pods import PodPlacement, Pods, RunningPod
from romana_ovs_emulate.reporter import NoReporter, Reporter
from romana_ovs_emulate.runs import Run, start_run
from romana_ovs_emulate.system import ip_batch, require_machine

SETTLE_SECONDS = patience(60.0)
"""How long a cluster may take until every switch is up to date, in seconds."""
PARALLEL = 4
"""How many nodes start at once; more would only compete for the CPU."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to emulate. `ports` (`80/tcp`) are served in every pod; `addresses` is the plan of all addresses.

    `source` is a folder of manifests or, with `follows_api`, the kubeconfig of an API server. `count` is the number of
    nodes in the controller's settings, None when the source names them. `state_file` None: a new one, removed with the
    run. `recursive`: the sub-folders of the folder are read, too. `datapath` None: the kernel's if it has one.
    """

    source: Path
    nodes: tuple[str, ...]
    count: int | None
    addresses: AddressPlan
    fabric: Fabric = Fabric.LINK
    ports: tuple[str, ...] = ()
    settings: tuple[Path, ...] = ()
    state_file: Path | None = None
    recursive: bool = False
    follows_api: bool = False
    datapath: DatapathType | None = None


class Emulation:
    """An emulated cluster, as a context manager; `listener` is called from another thread."""

    def __init__(
        self,
        plan: Plan,
        *,
        progress: Callable[[str], None] = lambda _: None,
        listener: Callable[[Event], None] = lambda _: None,
        on_error: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Nothing starts yet.

        `progress` is called with each step in a few words, `listener` with every event, `on_error` once with each
        failure.
        """
        self.plan = plan
        self.reporter: Reporter = NoReporter()
        self.nodes: Mapping[str, Node] = {}
        self._progress = progress
        self._listener = listener
        self._on_error = on_error
        self._reported: frozenset[str] = frozenset()
        self._retry: threading.Timer | None = None
        self._address_failures = Failures()
        self._changed = threading.Condition()
        self._state = State()
        self._programmed: Programmed | None = None
        self._listed = False
        self._failure: RomanaError | None = None
        self._node_addresses: dict[str, IPv4Address] = {}
        self._ending = False
        self._events_thread: threading.Thread | None = None
        self._run: Run | None = None
        self._zygote: Zygote | None = None
        self._pods: Pods | None = None
        self._datapath: DatapathType | None = None
        self._controller: Controller | None = None

    def __enter__(self) -> Emulation:
        """Start everything; returns once nodes are up and the controller starts. Raises SetupError."""
        require_machine()
        self._datapath = choose_datapath(self.plan.datapath)
        self._progress("removing what killed runs left behind")
        self._run = start_run()
        try:
            self._start(self._run, self._datapath)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, run: Run, datapath: DatapathType) -> None:
        plan = self.plan
        self._zygote = Zygote(run)
        started = "1 node with an" if len(plan.nodes) == 1 else f"{len(plan.nodes)} nodes, each with an"
        self._progress(f"starting {started} Open vSwitch of its own, datapath {datapath.value}")
        socket = controller_socket(run)

        def start(name: str) -> Node:
            return start_node(run, name, controller=socket, datapath=datapath)

        with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
            nodes = list(pool.map(start, plan.nodes))
        self.nodes = {node.name: node for node in nodes}
        self._progress(f"joining them by {plan.fabric.value}")
        join(run, nodes, plan.fabric)
        self._pods = Pods(run, self.nodes, self._zygote, mtu=plan.fabric.mtu)
        self._pods.serve(plan.ports)
        source = "kubeconfig" if plan.follows_api else "manifests"
        origin = {source: str(plan.source), **({"manifests_recursive": "yes"} if plan.recursive else {})}
        state_file = plan.state_file or run.folder / "state"
        options = Options(origin, plan.count, state_file, plan.settings, datapath)
        self._controller = Controller(run, nodes, options)
        self.reporter.start(run, self.nodes)
        self.start_controller()

    def close(self) -> None:
        """End and remove everything. Idempotent."""
        self._ending = True
        if self._controller is not None:
            self._controller.stop()
        if self._events_thread is not None:
            self._events_thread.join()
        with self._changed:
            # From now on `reconcile`, which other threads may call at any time, does nothing.
            self._pods = None
            if self._retry is not None:
                self._retry.cancel()
        self.reporter.close()
        if self._run is not None:
            self._run.close()
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    @property
    def datapath(self) -> DatapathType:
        """The datapath of its nodes. Raises SetupError before the start."""
        if self._datapath is None:
            raise SetupError("the emulated cluster is not started")
        return self._datapath

    @property
    def state(self) -> State:
        """The state that the controller reported last."""
        return self._state

    @property
    def pods(self) -> Mapping[PodKey, RunningPod]:
        """The pods that run."""
        return self._pods.running if self._pods is not None else {}

    @property
    def pod_failures(self) -> Mapping[PodKey, str]:
        """The pods that cannot be started, and why."""
        return self._pods.failed if self._pods is not None else {}

    @property
    def failures(self) -> tuple[str, ...]:
        """Failures of the emulation itself: pods that cannot be started or filtered, nodes without address."""
        pods = self._pods
        failed = [*pods.failed.values(), *filter(None, [pods.unfiltered])] if pods is not None else []
        failed += self._pods_on_later_nodes()
        ended = [str(self._failure)] if self._failure is not None else []
        return (*ended, *sorted([*self._address_failures.reasons.values(), *failed]))

    def _pods_on_later_nodes(self) -> list[str]:
        """A sentence for each pod on a node that a folder has named only after the start."""
        if self.plan.follows_api:
            return []  # nodes of the API server's cluster that run elsewhere
        return [
            f"pod {key} does not run: node {pod.node} was not there when the emulation started"
            for key, pod in sorted(self._state.pods.items())
            if pod.node not in self.nodes and pod.node in self._state.nodes
        ]

    def addresses(self) -> dict[PodKey, IPv4Address]:
        """The pods' addresses, as the controller reported them last."""
        return {key: IPv4Address(pod.address) for key, pod in self._state.pods.items()}

    @property
    def node_addresses(self) -> Mapping[str, IPv4Address]:
        """The addresses that nodes have on their bridges so far."""
        return dict(self._node_addresses)

    @property
    def controller(self) -> Controller:
        """The controller's process. Raises SetupError before the start."""
        if self._controller is None:
            raise SetupError("the emulated cluster is not started")
        return self._controller

    def start_controller(self) -> None:
        """Start the controller, for the first time or after `stop_controller`."""
        self._progress("starting the controller")
        self._state = State()
        self._programmed = None
        self._listed = False
        self._failure = None
        self._ending = False
        self.controller.start()
        self._events_thread = threading.Thread(target=self._follow, name="kubelet", daemon=True)
        self._events_thread.start()

    def stop_controller(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the controller by this signal; switches and pods continue."""
        self._ending = True
        self.controller.stop(number)
        if self._events_thread is not None:
            self._events_thread.join()

    def serve(self, ports: Iterable[str]) -> None:
        """Make all pods serve exactly `ports`. Raises SetupError."""
        with self._changed:
            if self._pods is not None:
                self._pods.serve(tuple(ports))

    def flush_sctp(self) -> None:
        """Flush SCTP from the connection tracking of every node's switch. Raises SetupError."""
        for node in self.nodes.values():
            node.ofctl("ct-flush", "ct_nw_proto=132")

    def settle(self, seconds: float = SETTLE_SECONDS, *, pods: int = 0) -> State:
        """The state once every pod runs, and at least `pods` of them, and every switch is up to date.

        Raises SetupError after `seconds`.
        """
        self._await(lambda: self.settled and len(self.pods) >= pods, seconds, "the cluster does not settle")
        return self._state

    def programmed_after(self, generation: int, seconds: float = SETTLE_SECONDS) -> Programmed:
        """The report that a change later than `generation` is in every switch. Raises SetupError after `seconds`."""

        def done() -> bool:
            return self._programmed is not None and self._programmed.generation > generation

        self._await(done, seconds, "the change does not reach the switches")
        if self._programmed is None:
            raise SetupError("the change does not reach the switches")
        return self._programmed

    def _await(self, condition: Callable[[], bool], seconds: float, problem: str) -> None:
        with self._changed:
            fulfilled = self._changed.wait_for(lambda: self._failure is not None or condition(), seconds)
            if self._failure is not None:
                raise self._failure
            if not fulfilled:
                raise SetupError(f"{problem} within {seconds:.0f} s: {self._missing()}")

    @property
    def settled(self) -> bool:
        """Whether every node has its address, every pod runs, and every switch is up to date."""
        state, running = self._state, {key: pod.place for key, pod in self.pods.items()}
        known = self.nodes.keys() <= state.nodes.keys() and self.nodes.keys() <= self._node_addresses.keys()
        pods = self._pods
        failed = pods.failed if pods is not None else {}
        wanted = {key: place for key, place in self._places().items() if key not in failed}
        return known and state.settled(self.nodes, failed=failed.keys()) and wanted == running

    def _missing(self) -> str:
        """A text with what the cluster is waiting for."""
        state = self._state
        if state.generation < 0:
            return f"the controller reports nothing; its log ends:\n{self.controller.log_tail()}"
        disconnected = sorted(name for name, node in state.nodes.items() if not node.connected)
        behind = sorted(name for name, node in state.nodes.items() if node.synced_generation < state.generation)
        portless = sorted(key for key, pod in state.pods.items() if pod.port is None)
        parts: list[tuple[str, Sequence[str]]] = [
            ("not connected", disconnected),
            ("behind", behind),
            ("without a port", portless),
            ("problems", state.problems),
            ("refused", state.refused),
            ("failing", self.failures),
        ]
        return "; ".join(f"{words}: {', '.join(names)}" for words, names in parts if names) or "nothing is missing now"

    def _follow(self) -> None:
        """Act as the kubelet of every node: follow the controller's events, until it ends."""
        try:
            for event in self.controller.events():
                self._on_event(event)
                self._listener(event)
            if not self._ending:
                raise SetupError(f"the controller ended; its log ends:\n{self.controller.log_tail()}")
        except RomanaError as error:
            with self._changed:
                if not self._ending:
                    self._failure = error
                self._changed.notify_all()
            self._report_failures()

    def _report_failures(self) -> None:
        """Report failures that have not been reported yet."""
        failures = frozenset(self.failures)
        for sentence in sorted(failures - self._reported):
            self._on_error(sentence)
        self._reported = failures

    def _on_event(self, event: Event) -> None:
        with self._changed:
            if isinstance(event, State):
                self._state = event
                self._address_nodes()
                self._follow_pods()
            elif isinstance(event, Programmed):
                self._programmed = event
            self._changed.notify_all()
        self._report_failures()

    def _follow_pods(self) -> None:
        """Run the pods that the controller reports. Keeps all running pods while a new controller is still starting."""
        if self._pods is None:
            return
        nodes = self._state.nodes
        self._listed = self._listed or (
            nodes.keys() >= self.nodes.keys() and all(node.synced_generation >= 0 for node in nodes.values())
        )
        kept = {} if self._listed else {key: pod.place for key, pod in self._pods.running.items()}
        kept = {key: place for key, place in kept.items() if not self.reporter.is_terminating(key, place.uid)}
        self._pods.reconcile({**kept, **self._places()}.values())
        ports = {key for key, pod in self._state.pods.items() if pod.port is not None}
        self.reporter.report_running({key: pod.place for key, pod in self._pods.running.items() if key in ports})
        self.reporter.report_failed(self._pods.failed)
        self._schedule_retry(bool(self._pods.failed))

    def _schedule_retry(self, wanted: bool) -> None:
        """Retry failed pods after RETRY_SECONDS, even if no further event comes."""
        if wanted and (self._retry is None or not self._retry.is_alive()):
            self._retry = threading.Timer(RETRY_SECONDS, self._retry_now)
            self._retry.daemon = True
            self._retry.start()

    def _retry_now(self) -> None:
        with self._changed:
            self._retry = None
        self.reconcile()

    def reconcile(self) -> None:
        """Start and end pods now: some may be terminating, or be due for a retry."""
        with self._changed:
            self._follow_pods()
            self._changed.notify_all()
        self._report_failures()

    def _places(self) -> dict[PodKey, PodPlacement]:
        return {
            key: PodPlacement(key, pod.node, pod.address, pod.mac, pod.uid)
            for key, pod in self._state.pods.items()
            if pod.node in self.nodes and not self.reporter.is_terminating(key, pod.uid)
        }

    def _address_nodes(self) -> None:
        """Configure each node's address on its bridge, once the controller reports it."""
        for name, node in self.nodes.items():
            state = self._state.nodes.get(name)
            if name in self._node_addresses or state is None or not state.address:
                continue
            if not self._address_failures.due(name, state.address):
                continue
            try:
                _address_node(node, IPv4Address(state.address), self.plan)
            except SetupError as error:
                self._address_failures.record(
                    name, state.address, f"node {name} cannot be configured with its address: {error}"
                )
            else:
                self._node_addresses[name] = IPv4Address(state.address)
                self._address_failures.clear(name)


def _address_node(node: Node, address: IPv4Address, plan: Plan) -> None:
    """Put the node's address on its bridge's local port, and route all pods by the next hop there."""
    mac = "0a:58:" + ":".join(f"{byte:02x}" for byte in address.packed)
    node.vsctl(
        "set",
        "bridge",
        BRIDGE,
        f'other_config:hwaddr="{mac}"',
        "--",
        "set",
        "interface",
        BRIDGE,
        f"mtu_request={plan.fabric.mtu}",
    )
    ip_batch(
        [
            f"addr flush dev {BRIDGE}",
            f"link set {BRIDGE} addrgenmode none up",
            f"addr add {address}/32 dev {BRIDGE}",
            *next_hop_commands(BRIDGE, plan.addresses.network, address),
        ],
        netns=node.netns,
    )
