"""Meters of a real switch under the controller: without cookie, and apart from bundles (docs/hazards.md B5)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from romana_ovs.model.settings import Settings
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.meters import ARP_BURST, ARP_RATE, METERS
from tests.support.controller_process import Controller, sent_during
from tests.support.manifests import TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs

pytestmark = [pytest.mark.root, needs_ovs]

RATE = 100
OF_TENANT = Settings().tenant_fragments
FOREIGN = f"meter={METERS.start - 1} kbps bands=type=drop rate=7"


@pytest.fixture
def one() -> Iterator[tuple[Ovs, Controller]]:
    """One node with pods a/x and a/y on it, programmed, and a meter that is not ours."""
    settings = f"new_connections = {RATE}"
    with Ovs() as ovs, Controller((ovs.remote,), settings=settings) as controller:
        controller.write("nodes.yaml", TWO_NODES)
        controller.write("pods.yaml", placed_pod("x") + placed_pod("y"))
        controller.start()
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        _add(ovs, FOREIGN)
        ovs.port("br-int", "px", iface_id="a/x", ofport=1)
        ovs.port("br-int", "py", iface_id="a/y", ofport=2)
        controller.until(lambda state: state["pods"]["a/y"]["port"] == 2, "the ports are known")
        controller.settled()
        yield ovs, controller


def _add(ovs: Ovs, shown: str) -> None:
    ovs.ofctl("br-int", "add-meter", shown.replace(" rate", ",rate").replace(" ", ","))


def _meters(ovs: Ovs) -> list[str]:
    """What ovs-ofctl shows of all meters but those for ARP and fragments, each in a line, sorted."""
    return sorted(set(_all_meters(ovs)) - set(_fixed_meters(ovs)))


def _fixed_meters(ovs: Ovs) -> list[str]:
    """Those of pods for ARP and fragments, which have the same rate here, and that of their tenant for fragments."""
    fixed = (f"rate={ARP_RATE} burst_size={ARP_BURST}", f"rate={OF_TENANT} burst_size={2 * OF_TENANT}")
    return [line for line in _all_meters(ovs) if line.endswith(fixed)]


def _all_meters(ovs: Ovs) -> list[str]:
    shown = ovs.ofctl("br-int", "dump-meters").partition("\n")[2]
    return sorted(" ".join(each.split()).replace("bands= ", "bands=") for each in shown.split("\n\n") if each.strip())


def _ours(port: int, rate: int = RATE) -> str:
    return f"meter={METERS[port]} pktps burst stats bands=type=drop rate={rate} burst_size={10 * rate}"


def _metered(ovs: Ovs) -> set[int]:
    """The ports whose flows name their own meter."""
    rank = f"priority={int(priorities.ConntrackCommit.METERED)},"
    found = [line for line in ovs.flows("br-int") if "meter:" in line and rank in line]
    ports = {METERS.index(int(line.partition("meter:")[2].partition(",")[0])) for line in found}
    assert len(ports) == len(found)
    assert all(any(f"in_port={port} actions=meter:{METERS[port]}," in line for line in found) for port in ports)
    return ports


def test_meters_come_and_go_with_ports_and_each_pod_has_its_own(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    assert _meters(ovs) == sorted([FOREIGN, _ours(1), _ours(2)])
    assert _metered(ovs) == {1, 2}
    assert len(_fixed_meters(ovs)) == 5
    controller.after_change(lambda: controller.write("more.yaml", placed_pod("z")))
    controller.after_change(lambda: ovs.port("br-int", "pz", iface_id="a/z", ofport=3))
    assert _meters(ovs) == sorted([FOREIGN, _ours(1), _ours(2), _ours(3)])
    controller.after_change(lambda: ovs.vsctl("del-port", "px"))
    assert _meters(ovs) == sorted([FOREIGN, _ours(2), _ours(3)])
    assert _metered(ovs) == {2, 3}


def test_a_restart_sends_only_what_the_switch_lost(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one

    def restart() -> None:
        controller.stop()
        controller.start()
        controller.settled()

    before = _meters(ovs)
    assert sent_during(ovs, "br-int", restart) == []
    assert _meters(ovs) == before
    ovs.kill_switch()
    controller.until(lambda state: not state["nodes"]["node1"]["connected"], "the death is noticed")
    ovs.start_switch()
    controller.settled()
    assert _meters(ovs) == sorted([_ours(1), _ours(2)])
    assert _metered(ovs) == {1, 2}


def test_orphans_go_on_resync_and_an_edit_is_one_message(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    controller.stop()
    _add(ovs, _ours(77))
    _add(ovs, _ours(0xFFFF).replace("pktps burst", "kbps burst"))

    def restart() -> None:
        controller.start()
        controller.settled()

    sent = sent_during(ovs, "br-int", restart)
    assert [line for line in sent if "METER_MOD" not in line] == []
    assert len(sent) == 2
    assert _meters(ovs) == sorted([FOREIGN, _ours(1), _ours(2)])
    controller.stop()
    controller.settings = f"new_connections = {RATE + 1}"
    sent = sent_during(ovs, "br-int", restart)
    assert len([line for line in sent if "METER_MOD" in line]) == len(sent) == 2
    assert _meters(ovs) == sorted([FOREIGN, _ours(1, RATE + 1), _ours(2, RATE + 1)])
    controller.stop()
    controller.settings = "new_connections = 0"
    restart()
    assert _meters(ovs) == [FOREIGN]
    assert _metered(ovs) == set()


def test_a_meter_that_the_switch_refuses_is_told_and_made_good(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    _add(ovs, _ours(3, 1))
    controller.after_change(lambda: controller.write("more.yaml", placed_pod("z")))
    ovs.port("br-int", "pz", iface_id="a/z", ofport=3)
    controller.until(lambda state: state["pods"].get("a/z", {}).get("port") == 3, "pod and port meet")
    controller.settled()
    assert f"refused the meter meter={METERS[3]}" in controller.log
    assert "(Pod a/z) (new_connections = 0 turns it off): OFPET_METER_MOD_FAILED" in controller.log
    assert _meters(ovs) == sorted([FOREIGN, _ours(1), _ours(2), _ours(3)])
    assert _metered(ovs) == {1, 2, 3}
    assert controller.state["problems"] == []
