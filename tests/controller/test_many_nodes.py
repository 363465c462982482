"""Many nodes are one status: what is written of objects does not grow with how many there are (docs/hazards.md C14)."""

from __future__ import annotations

from romana_ovs.controller.status_reporter import STATUS_SECONDS
from romana_ovs.kube.api.desired import ConditionStatus, PolicyStatus, ReplaceStatuses, UpdateStatuses
from romana_ovs.kube.api.resources import NODE_REPORTS, NODES
from romana_ovs.kube.decode.objects import ObjectId
from tests.support.in_memory_server import ControllerProcess, MemoryServer, put_policy

MANY = 1000
P = ObjectId("RomanaNetworkPolicy", "shop", "p")


def programmed_reasons(process: ControllerProcess) -> list[tuple[str, int]]:
    """What the status of the policy was to say, in order: how far it is, of which generation."""
    reasons = []
    for message in process.sent:
        changed = message.statuses if isinstance(message, ReplaceStatuses) else {}
        status = (message.changed if isinstance(message, UpdateStatuses) else changed).get(P)
        if isinstance(status, PolicyStatus):
            [programmed] = [one for one in status.conditions if one.type == "Programmed"]
            reasons.append((programmed.reason, status.version.generation))
            assert (programmed.status is ConditionStatus.TRUE) == (programmed.reason == "Programmed")
    return reasons


def rest(process: ControllerProcess) -> None:
    """Handle all messages, and send all statuses."""
    process.settle()
    process.wait(2 * STATUS_SECONDS)


def reported(server: MemoryServer, node: str, policies: str) -> None:
    server.put(NODE_REPORTS, node, spec={}, status={"acknowledgedRevision": 0, "policiesDigest": policies})


def test_the_reports_of_a_thousand_nodes_are_a_few_statuses() -> None:
    server = MemoryServer()
    names = [f"n{number:03}" for number in range(MANY)]
    for name in names:
        server.put(NODES, name)
        reported(server, name, "")
    put_policy(server)
    registry = ControllerProcess(server)
    registry.start()
    registry.lead()
    for port in (80, 81, 82):
        put_policy(server, port=port)
        rest(registry)
        digest = registry.reconciler.policies_digest
        for number, name in enumerate(names):
            # A hundred reports between two looks, so that there are ten looks at a state in between.
            reported(server, name, digest)
            if not number % 100 or name == names[-2]:
                rest(registry)
                assert programmed_reasons(registry)[-1][0] != "Programmed", f"{name} is not the last one"
        rest(registry)
    assert programmed_reasons(registry) == [
        ("Starting", 1),
        ("Programmed", 1),
        ("Pending", 2),
        ("Programmed", 2),
        ("Pending", 3),
        ("Programmed", 3),
    ]
    assert {write.kind for write in server.writes} <= {"Allocation", "ClassSet"}, "reports are the nodes' own"
