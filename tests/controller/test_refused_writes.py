"""How a controller deals with an API server that takes nothing from it."""

from __future__ import annotations

from romana_ovs.controller.duties import Duties
from romana_ovs.controller.parts import Parts
from romana_ovs.controller.registry import TROUBLE_SECONDS
from romana_ovs.controller.shelf import RESOURCES
from romana_ovs.kube.api.carry import Carried, Carry
from romana_ovs.kube.api.messages import Began, Listed
from romana_ovs.kube.api.wanted import Leadership
from romana_ovs.kube.live import LiveStore
from tests.test_world import cluster, pod


class Rig:
    """Duties with a clock of ours; `carries` are the writes that they asked for."""

    def __init__(self, *, registers: bool) -> None:
        self.at = cluster(pod("a"))
        self.now = 100.0
        self.told: list[object] = []
        self.later: list[float] = []
        settings = self.at.settings
        self.duties = Duties(
            settings, Parts(settings), LiveStore(settings), registers=registers, tell=self.told.append,
            later=self.later.append, wake_later=lambda _: None, clock=lambda: self.now,
        )
        self.duties.take([message for each in RESOURCES for message in (Began(str(each)), Listed(str(each)))])

    @property
    def carries(self) -> list[Carry]:
        return [message for message in self.told if isinstance(message, Carry)]

    def round(self) -> None:
        self.duties.follow(self.at, ["node1"])
        self.duties.speak()


def test_a_refused_report_is_tried_again_after_a_pause() -> None:
    """HAZARDS C3 and C8."""
    rig = Rig(registers=False)
    rig.round()
    (first,) = rig.carries
    assert not rig.duties.take([Carried(first.number, "forbidden")])
    assert [problem.reason for problem in rig.duties.problems] == ["forbidden"] and TROUBLE_SECONDS in rig.later
    rig.round()
    assert rig.carries == [first]
    rig.now += TROUBLE_SECONDS
    rig.round()
    assert [carry.writes for carry in rig.carries] == [first.writes, first.writes]


def test_refused_numbers_are_tried_again_after_a_pause() -> None:
    """HAZARDS C3 and C8."""
    rig = Rig(registers=True)
    rig.duties.take([Leadership(leads=True, epoch=1, holder="me")])
    rig.round()
    (first,) = [carry for carry in rig.carries if carry.leading]
    rig.duties.take([Carried(first.number, "forbidden")])
    rig.round()
    assert [carry for carry in rig.carries if carry.leading] == [first] and TROUBLE_SECONDS in rig.later
    rig.now += TROUBLE_SECONDS
    rig.round()
    assert len([carry for carry in rig.carries if carry.leading]) == 2
