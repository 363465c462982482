"""Which pods count as older than their bridge's connections, by what is noted in the database."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.controller.pre_restart import SURVIVAL_SECONDS, PreRestartPods, known_pods, marks_of, programmed_for
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge, Marks
from romana_ovs.sync.attached_pods import AttachedPod

OLD, NEW = PodKey("a/old"), PodKey("a/new")
ADDRESS = {OLD: IPv4Address("10.0.64.1"), NEW: IPv4Address("10.0.64.2")}
NOTED = programmed_for(OLD, ADDRESS[OLD], "uid-1")


class Known:
    """Pods by name."""

    address_of = staticmethod(ADDRESS.get)

    def uid_of(self, key: PodKey) -> str:
        return {OLD: "uid-1"}.get(key, "uid-2")


PLACES = Known()


def bridge(*, datapath: str = "netdev", lost_at: float | None = None, noted: str = NOTED) -> Bridge:
    """Two pods, one of which was programmed before."""
    facts = BridgeFacts("node1", MappingProxyType({OLD: PodPort(1), NEW: PodPort(2)}))
    marks = Marks(MappingProxyType({OLD: noted, NEW: ""}), lost_at)
    return Bridge(1, "br-int", facts, {OLD: "row1", NEW: "row2"}, datapath=datapath, marks=marks)


def surviving(facts: BridgeFacts) -> set[PodKey]:
    return {key for key, port in facts.pod_ports.items() if port.pre_restart}


def test_programmed_pods_are_pre_restart_for_a_while() -> None:
    survivors = PreRestartPods({}, fresh=True)
    facts = survivors.mark(bridge(), PLACES, 1000.0)
    assert surviving(facts) == {OLD} and facts.conntrack_lost
    assert marks_of(bridge(), PLACES, survivors.lost_at).lost_at == 1000.0
    later = survivors.mark(bridge(), PLACES, 1000.0 + SURVIVAL_SECONDS)
    assert surviving(later) == set() and not later.conntrack_lost


def test_without_a_loss_no_pod_is_pre_restart() -> None:
    others = ("", "a/old 10.0.64.9 uid-1", "a/old 10.0.64.1 uid-9", "a/x 10.0.64.1 uid-1")
    for found in (bridge(datapath="system"), *(bridge(noted=noted) for noted in others)):
        facts = PreRestartPods({}, fresh=True).mark(found, PLACES, 1000.0)
        assert surviving(facts) == set() and not facts.conntrack_lost
    assert known_pods(bridge(datapath="system"), PLACES) == {OLD: ADDRESS[OLD]}, "whose connections are its own"


def test_a_restarted_controller_reads_which_are_pre_restart() -> None:
    served = {ADDRESS[OLD]: AttachedPod(1, pre_restart=True), ADDRESS[NEW]: AttachedPod(2, pre_restart=False)}
    for lost_at, expected in ((990.0, {OLD}), (None, set()), (1000.0 - SURVIVAL_SECONDS, set())):
        facts = PreRestartPods(served, fresh=False).mark(bridge(lost_at=lost_at), PLACES, 1000.0)
        assert surviving(facts) == expected


def test_a_pod_that_was_taken_out_is_none_any_more() -> None:
    survivors = PreRestartPods({}, fresh=True)
    assert surviving(survivors.mark(bridge(), PLACES, 1.0)) == {OLD}
    again = replace(bridge(), rows={OLD: "row3", NEW: "row2"})
    assert surviving(survivors.mark(again, PLACES, 2.0)) == set()
