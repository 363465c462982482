"""Which pods count as pre-restart, by the notes in the database."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.controller.pre_restart import (
    SURVIVAL_SECONDS,
    PreRestartPods,
    external_ids_of,
    programmed_pods,
    programmed_text,
    reassigned_addresses,
)
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge, BridgeExternalIds
from romana_ovs.sync.attached_pods import AttachedPod

OLD, NEW = PodKey("a/old"), PodKey("a/new")
ADDRESS = {OLD: IPv4Address("10.0.64.1"), NEW: IPv4Address("10.0.64.2")}
NOTED = programmed_text(OLD, ADDRESS[OLD], "uid-1")


class FakePods:
    """Pods by name."""

    address_of = staticmethod(ADDRESS.get)

    def uid_of(self, key: PodKey) -> str:
        return {OLD: "uid-1"}.get(key, "uid-2")


PODS = FakePods()


def bridge(*, datapath: str = "netdev", lost_at: float | None = None, noted: str = NOTED) -> Bridge:
    """Two pods, one of which was programmed before."""
    facts = BridgeFacts("node1", MappingProxyType({OLD: PodPort(1), NEW: PodPort(2)}))
    external_ids = BridgeExternalIds(MappingProxyType({OLD: noted, NEW: ""}), lost_at)
    return Bridge(1, "br-int", facts, {OLD: "row1", NEW: "row2"}, datapath=datapath, external_ids=external_ids)


def pre_restart_pods(facts: BridgeFacts) -> set[PodKey]:
    return {key for key, port in facts.pod_ports.items() if port.pre_restart}


def test_programmed_pods_are_pre_restart_for_a_while() -> None:
    pre_restart = PreRestartPods({}, fresh=True)
    facts = pre_restart.marked_facts(bridge(), PODS, 1000.0)
    assert pre_restart_pods(facts) == {OLD} and facts.conntrack_lost
    assert external_ids_of(bridge(), {}, pre_restart.lost_at).lost_at == 1000.0
    later = pre_restart.marked_facts(bridge(), PODS, 1000.0 + SURVIVAL_SECONDS)
    assert pre_restart_pods(later) == set() and not later.conntrack_lost


def test_marks_are_of_the_pods_in_the_tables_and_their_rows() -> None:
    external_ids = external_ids_of(
        bridge(), {ADDRESS[OLD]: (OLD, "uid-1"), ADDRESS[NEW]: (PodKey("a/other"), "uid-2")}, None
    )
    assert external_ids.programmed == {OLD: NOTED} and external_ids.rows == {OLD: "row1", NEW: "row2"}


def test_a_port_of_another_uid_is_not_marked() -> None:
    facts = BridgeFacts("node1", MappingProxyType({OLD: PodPort(1, uid="uid-9")}))
    assert external_ids_of(replace(bridge(), facts=facts), {ADDRESS[OLD]: (OLD, "uid-1")}, None).programmed == {}


def test_without_a_loss_no_pod_is_pre_restart() -> None:
    other_notes = ("", "a/old 10.0.64.9 uid-1", "a/old 10.0.64.1 uid-9", "a/x 10.0.64.1 uid-1")
    for at_start in (bridge(datapath="system"), *(bridge(noted=noted) for noted in other_notes)):
        facts = PreRestartPods({}, fresh=True).marked_facts(at_start, PODS, 1000.0)
        assert pre_restart_pods(facts) == set() and not facts.conntrack_lost
    assert programmed_pods(bridge(datapath="system"), PODS) == {OLD: ADDRESS[OLD]}, (
        "its address has no connections of other pods"
    )


def test_a_restarted_controller_finds_pre_restart_pods() -> None:
    attached = {ADDRESS[OLD]: AttachedPod(1, pre_restart=True), ADDRESS[NEW]: AttachedPod(2, pre_restart=False)}
    for lost_at, expected in ((990.0, {OLD}), (None, set()), (1000.0 - SURVIVAL_SECONDS, set())):
        facts = PreRestartPods(attached, fresh=False).marked_facts(bridge(lost_at=lost_at), PODS, 1000.0)
        assert pre_restart_pods(facts) == expected


def test_a_detached_pod_is_not_pre_restart_any_more() -> None:
    pre_restart = PreRestartPods({}, fresh=True)
    assert pre_restart_pods(pre_restart.marked_facts(bridge(), PODS, 1.0)) == {OLD}
    reattached = replace(bridge(), rows={OLD: "row3", NEW: "row2"})
    assert pre_restart_pods(pre_restart.marked_facts(reattached, PODS, 2.0)) == set()


def test_marks_say_which_addresses_were_anothers() -> None:
    """An address is reassigned by its own port's mark; a mark of another address says nothing of this one."""
    own, unknown_uid = (NOTED, "a/old 10.0.64.1")
    for noted in (own, unknown_uid):
        assert programmed_pods(bridge(noted=noted), PODS) == {OLD: ADDRESS[OLD]}
        assert reassigned_addresses(bridge(noted=noted), PODS) == frozenset()
    for noted in ("a/old 10.0.64.1 uid-9", "a/x 10.0.64.1 uid-1"):
        assert programmed_pods(bridge(noted=noted), PODS) == {}
        assert reassigned_addresses(bridge(noted=noted), PODS) == {ADDRESS[OLD]}
    for noted in ("", "a/old", "a/old 10.0.64.9 uid-1"):
        assert programmed_pods(bridge(noted=noted), PODS) == {}
        assert reassigned_addresses(bridge(noted=noted), PODS) == frozenset()
