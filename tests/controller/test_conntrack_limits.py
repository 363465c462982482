"""Connection limits of tenants over fake zones: what is set, when, and what is reported."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import pytest

from romana_ovs.controller.conntrack_limits import BridgeZones, ConntrackLimits, DatapathRef, limits_of
from romana_ovs.flag import Flag
from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.zones import COMMON, ZoneShare
from romana_ovs.switch.zone_limits import ZoneUse

DATAPATH = DatapathRef("unix:/a/db.sock", "netdev")
RED, BLUE, REST = 0x2001, 0x2002, 0x1001


def shares(tenants: dict[int, str]) -> dict[int, ZoneShare]:
    """BridgeZones that are each all of a tenant's."""
    return {zone: ZoneShare(tenant) for zone, tenant in tenants.items()}


class CountingFlag(Flag):
    """A flag that counts how often it was raised."""

    raised = 0

    def set(self) -> None:
        self.raised += 1
        super().set()


@dataclass
class FakeZones:
    """The zones of one datapath: `calls` are what changed them; `fault` is the error of every call."""

    table: int | None = 3_000_000
    uses: dict[int, ZoneUse] = field(default_factory=dict)
    calls: list[tuple[str, object]] = field(default_factory=list)
    fault: str = ""
    fragments: int = 1000

    def _fail_if_broken(self) -> None:
        if self.fault:
            raise SwitchError(self.fault)

    def table_size(self) -> int | None:
        self._fail_if_broken()
        return self.table

    def set_fragments(self, count: int) -> None:
        self._fail_if_broken()
        self.fragments = count

    def read(self, zones: object = ()) -> dict[int, ZoneUse]:
        self._fail_if_broken()
        return dict(self.uses)

    def set(self, limits: dict[int, int]) -> None:
        self._fail_if_broken()
        for zone, limit in limits.items():
            self.uses[zone] = ZoneUse(limit, self.uses[zone].count if zone in self.uses else 0)
        self.calls += [("set", dict(limits))] if limits else []

    def remove(self, zones: Collection[int]) -> None:
        self._fail_if_broken()
        for zone in zones:
            del self.uses[zone]
        self.calls += [("remove", set(zones))] if zones else []

    def count(self, zone: int, count: int) -> None:
        """Let so many connections be in a zone."""
        self.uses[zone] = ZoneUse(self.uses[zone].limit, count)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class CheckedLimits:
    """ConntrackLimits over fake zones, with a flag that counts how often it was raised."""

    setting: int = 1000
    zones: FakeZones = field(default_factory=FakeZones)
    clock: Clock = field(default_factory=Clock)
    flag: CountingFlag = field(default_factory=lambda: CountingFlag())

    def __post_init__(self) -> None:
        self.limits = ConntrackLimits(self.setting, self.flag, clock=self.clock, zones_at=lambda *_: self.zones)  # type: ignore[arg-type]

    def problems(self) -> list[str]:
        """The problems at this moment."""
        return list(self.limits.problems)

    def set_tenants(self, tenants: dict[int, str], node: str = "n1", datapath: DatapathRef = DATAPATH) -> None:
        self.limits.set_zones({node: BridgeZones(datapath, shares(tenants))}, [node])


@pytest.mark.parametrize(
    ("setting", "table", "expected"),
    [
        (1000, 3_000_000, {RED: 1000, BLUE: 1000, REST: 1_500_000}),
        (250_000, 262_144, {RED: 65_536, BLUE: 65_536, REST: 131_072}),
        (250_000, None, {RED: 250_000, BLUE: 250_000}),
        (0, 3_000_000, {}),
        (5, 1, {RED: 1, BLUE: 1, REST: 1}),
    ],
)
def test_limits_fit_the_table(setting: int, table: int | None, expected: dict[int, int]) -> None:
    assert limits_of(shares({RED: "red", BLUE: "blue", REST: COMMON}), setting, table) == expected


def test_several_zones_of_one_tenant_share_what_it_may_have() -> None:
    zones = {
        RED: ZoneShare("red", 2),
        BLUE: ZoneShare("red", 4),
        BLUE + 1: ZoneShare("red", 4),
        REST: ZoneShare(COMMON),
    }
    assert limits_of(zones, 1000, 100) == {RED: 12, BLUE: 6, BLUE + 1: 6, REST: 50}
    assert sum(limits_of(zones, 1000, None).values()) == 1000


def test_zones_get_limits_as_they_come_and_lose_them_as_they_go() -> None:
    checked = CheckedLimits()
    checked.zones.uses[7] = ZoneUse(5, 5)
    checked.set_tenants({RED: "red"})
    assert not checked.limits.check()
    assert checked.zones.calls == [("set", {RED: 1000})]
    checked.limits.check()
    assert len(checked.zones.calls) == 1
    checked.set_tenants({RED: "red", BLUE: "blue"})
    checked.limits.check()
    assert checked.zones.calls[1:] == [("set", {BLUE: 1000})]
    checked.set_tenants({BLUE: "blue"})
    checked.limits.check()
    assert checked.zones.calls[2:] == [("remove", {RED})]
    # What is not ours is left alone, also when it is full.
    checked.limits.set_zones({}, [])
    checked.limits.check()
    assert checked.zones.calls[3:] == [("remove", {BLUE})]
    assert checked.zones.uses == {7: ZoneUse(5, 5)}
    assert checked.limits.problems == ()


def test_a_restarted_switch_gets_its_limits_again() -> None:
    checked = CheckedLimits(setting=250_000)
    checked.set_tenants({RED: "red"})
    checked.limits.check()
    assert checked.zones.fragments == 5000
    checked.zones.uses, checked.zones.table, checked.zones.fragments = {}, 4000, 1000
    checked.limits.check()
    assert checked.zones.fragments == 5000, "a new process keeps as few as ever"
    assert checked.zones.uses == {RED: ZoneUse(1000, 0)}


def test_a_silent_node_keeps_its_limits_for_a_while() -> None:
    checked = CheckedLimits()
    checked.set_tenants({RED: "red"})
    checked.limits.check()
    checked.limits.set_zones({}, ["n1"])
    checked.limits.check()
    assert checked.zones.uses == {RED: ZoneUse(1000, 0)}


def test_a_tenant_at_its_limit_is_named_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    checked = CheckedLimits()
    checked.set_tenants({RED: "red", BLUE: "blue"})
    caplog.set_level("INFO")
    counts = ((999, False), (1000, True), (950, True), (1000, True), (900, True), (899, False), (950, False))
    for count, named in counts:
        checked.limits.check()
        checked.zones.count(RED, count)
        checked.limits.check()
        assert [text for text in checked.limits.problems if "tenant red" in text] == list(checked.limits.problems)
        assert bool(checked.limits.problems) == named
        assert dict(checked.limits.tenants_at_limit) == ({"n1": ("red",)} if named else {})
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1
    assert len([one for one in caplog.records if "can open connections again" in one.message]) == 1
    assert checked.flag.raised == 2


def test_limits_that_cannot_be_set_are_a_problem_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    checked = CheckedLimits()
    checked.zones.fault = "/a/ovs-vswitchd.pid: No such file or directory"
    checked.set_tenants({RED: "red"})
    assert checked.limits.check()
    assert checked.problems() == []
    checked.clock.now = 5.0
    for _ in range(3):
        # A switch that does not answer is not asked every second.
        assert not checked.limits.check()
    problem = (
        "tenants' connections are not limited (tenant_connections): /a/ovs-vswitchd.pid: No such file or directory"
    )
    assert checked.problems() == [problem]
    assert [one.message for one in caplog.records] == [problem]
    checked.zones.fault = ""
    assert not checked.limits.check()
    assert checked.problems() == []
    assert checked.zones.uses == {RED: ZoneUse(1000, 0)}


def test_without_a_limit_no_switch_is_queried() -> None:
    checked = CheckedLimits(setting=0)
    checked.zones.fault = "must not be asked"
    checked.set_tenants({RED: "red"})
    assert not checked.limits.check()
    assert checked.limits.problems == ()


def test_bridges_of_one_switch_share_its_conntrack_table() -> None:
    both = {DATAPATH: FakeZones(), DatapathRef("unix:/b/db.sock", "netdev"): FakeZones(table=400)}
    limits = ConntrackLimits(1000, Flag(), zones_at=lambda remote, kind: both[DatapathRef(remote, kind)])  # type: ignore[arg-type,return-value]
    one, two = both
    desired = {
        "n1": BridgeZones(one, shares({1: "red"})),
        "n2": BridgeZones(one, shares({2: "red"})),
        "n3": BridgeZones(two, shares({3: "red"})),
    }
    limits.set_zones(desired, desired)
    limits.check()
    assert both[one].calls == [("set", {1: 1000, 2: 1000})]
    assert both[two].calls == [("set", {3: 100})]
    both[one].count(2, 1000)
    limits.check()
    assert dict(limits.tenants_at_limit) == {"n2": ("red",)}
