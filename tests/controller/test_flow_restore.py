"""When a controller connects to a switch that waits for its flows, and when it ends the wait."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import eventlet
import pytest

from romana_ovs.controller.bridge_index import BridgeIndex
from romana_ovs.controller.flow_restore import OTHERS_SECONDS, FlowRestore, management_socket
from romana_ovs.model.errors import SwitchError
from romana_ovs.switch.bridges import BridgeRow, ControllerRow, bridges

DATABASE = "unix:/run/ovs/db.sock"
EMPTY: MappingProxyType[str, str] = MappingProxyType({})


@dataclass
class FakeSession:
    """A session of a switch."""

    management: bool
    idle: bool = True


@dataclass
class FakeSwitches:
    """The bridges that are programmed; nodes in `without_tables` have no host number."""

    driven: frozenset[str]
    sessions_by_node: dict[str, FakeSession] = field(default_factory=dict)
    without_tables: set[str] = field(default_factory=set)

    @property
    def programmable(self) -> dict[str, FakeSession]:
        return {node: each for node, each in self.sessions_by_node.items() if node not in self.without_tables}


class Scene:
    """Bridges of one database, br-int of node1 and br-2 of node2, and what was done."""

    def __init__(self, *nodes: str, database: str = DATABASE) -> None:
        self.database = database
        self.index = BridgeIndex((database,))
        self.switches = FakeSwitches(frozenset(nodes))
        self.served: list[Path] = []
        self.ended: list[str] = []
        self.fault = ""
        self.restore = FlowRestore(self.index, self.switches, serve=self._serve, end_wait=self.ended.append)
        self.wait(False)

    def wait(self, waits: bool) -> None:
        """Set or remove flow-restore-wait."""
        rows = tuple(
            BridgeRow(
                "br-int" if node == "node1" else f"br-{number}",
                number,
                "host",
                {"romana-node": node},
                EMPTY,
                "secure",
                (ControllerRow("unix:/run/x", "out-of-band", "service"),),
                (),
                flow_restore_wait=waits,
            )
            for number, node in enumerate(sorted(self.switches.driven), start=1)
        )
        self.index.replace(self.database, rows)

    def connect(self, node: str, *, management: bool, idle: bool = True) -> None:
        """A switch connects."""
        self.switches.sessions_by_node[node] = FakeSession(management, idle)

    def disconnect(self, node: str) -> None:
        """A switch is away."""
        del self.switches.sessions_by_node[node]

    def check(self, now: float) -> list[str]:
        """What is ended by one pass at that time."""
        self.ended.clear()
        self.restore.check(now)
        eventlet.sleep(0)
        return list(self.ended)

    def _serve(self, path: Path) -> None:
        self.served.append(path)
        if self.fault:
            raise SwitchError(self.fault)


@pytest.fixture
def scene() -> Scene:
    """One bridge, whose wait was set while it was connected; its process has ended since."""
    scene = Scene("node1")
    scene.connect("node1", management=False)
    scene.wait(True)
    assert scene.check(0.0) == []
    assert scene.served == []
    scene.disconnect("node1")
    return scene


def test_a_restarted_switch_is_reached_at_its_management_socket(scene: Scene) -> None:
    scene.fault = "/run/ovs/br-int.mgmt: Connection refused"
    scene.check(1.0)
    assert set(scene.served) == {Path("/run/ovs/br-int.mgmt")}
    assert "Connection refused" in scene.restore.problems[0]
    attempts = len(scene.served)
    eventlet.sleep(0.2)
    assert len(scene.served) > attempts, "it tries again"
    scene.connect("node1", management=True)
    eventlet.sleep(0.1)
    assert scene.restore.problems == ()


def test_the_wait_ends_as_soon_as_the_tables_are_in(scene: Scene) -> None:
    scene.connect("node1", management=True, idle=False)
    assert scene.check(1.0) == []
    scene.connect("node1", management=True)
    assert scene.check(1.5) == [DATABASE]
    assert scene.check(1.6) == [], "the database is asked once"
    assert scene.check(1.5 + OTHERS_SECONDS) == [DATABASE], "and again if it did not do it"
    scene.wait(False)
    assert scene.check(30.0) == []
    assert scene.restore.check_at is None


def test_what_ovs_ctl_set_is_left_to_it_for_a_while() -> None:
    scene = Scene("node1")
    scene.connect("node1", management=False)
    scene.check(0.0)
    scene.disconnect("node1")
    scene.wait(True)
    scene.check(1.0)
    scene.connect("node1", management=True)
    assert scene.check(2.0) == []
    assert scene.restore.check_at == 2.0 + OTHERS_SECONDS
    assert scene.check(2.0 + OTHERS_SECONDS) == [DATABASE], "but it is never left for good"


def test_a_wait_that_ended_says_nothing_of_the_next(scene: Scene) -> None:
    scene.wait(False)
    scene.check(1.0)
    scene.wait(True)
    scene.connect("node1", management=True)
    assert scene.check(2.0) == []


def test_all_bridges_of_a_database_have_their_flows_first() -> None:
    scene = Scene("node1", "node2")
    for node in ("node1", "node2"):
        scene.connect(node, management=False)
    scene.wait(True)
    scene.check(0.0)
    scene.disconnect("node1")
    scene.disconnect("node2")
    scene.connect("node1", management=True)
    assert scene.check(1.0) == []
    assert scene.served == [Path("/run/ovs/br-2.mgmt")]
    scene.connect("node2", management=True, idle=False)
    assert scene.check(2.0) == []
    scene.connect("node2", management=True)
    assert scene.check(3.0) == [DATABASE]


def test_a_node_without_tables_holds_nobody_up(scene: Scene) -> None:
    scene.connect("node1", management=True)
    scene.switches.without_tables.add("node1")
    assert scene.check(1.0) == [], "nothing was programmed"
    scene.switches.without_tables.clear()
    assert scene.check(2.0) == [DATABASE]


def test_a_switch_of_another_machine_is_reported() -> None:
    scene = Scene("node1", database="tcp:192.0.2.1:6640")
    scene.wait(True)
    scene.check(0.0)
    problem = scene.restore.problems[0]
    assert "ovs-vsctl remove open_vswitch . other_config flow-restore-wait" in problem
    assert "tcp:192.0.2.1:6640 is not a unix socket" in problem
    scene.wait(False)
    eventlet.sleep(0.1)
    assert scene.restore.problems == ()


def test_the_management_socket_has_the_name_of_its_bridge() -> None:
    row = BridgeRow("br-x", 1, "host", {"romana-node": "n"}, EMPTY, "secure", (), ())
    (bridge,) = bridges([replace(row, flow_restore_wait=True)])
    assert management_socket(DATABASE, bridge) == Path("/run/ovs/br-x.mgmt")
