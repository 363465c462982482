"""How a controller deals with an API server that takes nothing from it."""

from __future__ import annotations

# mypy: ignore-errors
from romana_ovs.controller.api_reconciler import ApiReconciler
from romana_ovs.controller.published_store import RESOURCES
from romana_ovs.controller.registry import LATE_SECONDS, TROUBLE_SECONDS
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.kube.api.desired import Leadership
from romana_ovs.kube.api.messages import ListCompleted, ListStarted
from romana_ovs.kube.api.resources import ALLOCATIONS, NODE_REPORTS
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from tests.support.cluster_objects import cluster, pod
from tests.support.in_memory_server import ControllerProcess, put_pod, server_with_pods


class Rig:
    """ApiReconciler with a clock of ours; `carries` are the writes that they asked for."""

    def __init__(self, *, registers: bool) -> None:
        self.at = cluster(pod("a"))
        self.now = 100.0
        self.told: list[object] = []
        self.later: list[float] = []
        settings = self.at.settings
        self.duties = ApiReconciler(
            settings,
            NodeAgents(settings),
            ClusterCache(settings),
            self,
            registers=registers,
            clock=lambda: self.now,
        )
        self.duties.observe_messages(
            [message for each in RESOURCES for message in (ListStarted(str(each)), ListCompleted(str(each)))]
        )

    def send(self, message: object) -> None:
        self.told.append(message)

    def schedule_round(self, after: float) -> None:
        self.later.append(after)

    def wake(self, after: float) -> None:
        pass

    @property
    def carries(self) -> list[WriteRequest]:
        return [message for message in self.told if isinstance(message, WriteRequest)]

    def round(self) -> None:
        self.duties.step(self.at, ["node1"])
        self.duties.flush_writes()


def test_a_refused_report_is_tried_again_after_a_pause() -> None:
    """docs/hazards.md C3 and C8."""
    rig = Rig(registers=False)
    rig.round()
    (first,) = rig.carries
    assert not rig.duties.observe_messages([WriteResult(first.number, "forbidden")])
    assert [problem.reason for problem in rig.duties.problems] == ["forbidden"] and TROUBLE_SECONDS in rig.later
    rig.round()
    assert rig.carries == [first]
    rig.now += TROUBLE_SECONDS
    rig.round()
    assert [carry.writes for carry in rig.carries] == [first.writes, first.writes]


def test_refused_numbers_are_tried_again_after_a_pause() -> None:
    """docs/hazards.md C3 and C8."""
    rig = Rig(registers=True)
    rig.duties.observe_messages([Leadership(leads=True, epoch=1, holder="me")])
    rig.round()
    (first,) = [carry for carry in rig.carries if carry.leading]
    rig.duties.observe_messages([WriteResult(first.number, "forbidden")])
    rig.round()
    assert [carry for carry in rig.carries if carry.leading] == [first] and TROUBLE_SECONDS in rig.later
    rig.now += TROUBLE_SECONDS
    rig.round()
    assert len([carry for carry in rig.carries if carry.leading]) == 2


# Somebody was quicker, and the watch does not tell of it: it is away, or behind.


def jobs_in(process: ControllerProcess, seconds: float) -> int:
    """How many jobs are brought to the server in so many seconds, with something to look at ten times a second."""
    before, end = process.server.jobs, process.now + seconds
    while process.now < end:
        process.due = True
        process.settle()
        process.wait(0.1)
    return process.server.jobs - before


def test_a_report_that_comes_too_late_is_not_sent_again_and_again() -> None:
    server = server_with_pods("a@n1")
    node = ControllerProcess(server, nodes=("n1",), registers=False)
    node.start()
    node.look()
    server.watching.clear()
    server.put(NODE_REPORTS, "n1", spec={}, status={"acknowledgedRevision": 99})
    assert 5 <= jobs_in(node, 10 * LATE_SECONDS) <= 12
    server.watching.append(node)
    node.start()
    node.settle()
    node.wait(LATE_SECONDS)
    assert server.of(NODE_REPORTS, "n1")["status"]["acknowledgedRevision"] == 0


def test_numbers_that_come_too_late_are_not_sent_again_and_again() -> None:
    server = server_with_pods("a@n1")
    registry = ControllerProcess(server, nodes=("n1",))
    registry.start()
    registry.lead()
    registry.settle()
    server.watching.clear()
    server.put(ALLOCATIONS, "cluster", spec=server.of(ALLOCATIONS, "cluster")["spec"])
    server.watching.append(registry)
    put_pod(server, "b", "n1", tier="db")
    assert 5 <= jobs_in(registry, 10 * LATE_SECONDS) <= 20, "its reports included"


def test_what_was_told_before_the_answer_came_is_tried_again_at_once() -> None:
    server = server_with_pods("a@n1")
    registry = ControllerProcess(server, nodes=("n1",))
    registry.start()
    registry.lead()
    registry.settle()
    put_pod(server, "b", "n1", tier="db")
    registry.look()
    server.put(ALLOCATIONS, "cluster", spec=server.of(ALLOCATIONS, "cluster")["spec"])
    before = registry.now
    registry.settle()
    assert registry.now == before
    tenant = server.of(ALLOCATIONS, "cluster")["spec"]["tenants"][0]
    assert [tier["name"] for tier in tenant["tiers"]] == ["db", "default"]
