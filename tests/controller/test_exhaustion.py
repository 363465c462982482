"""A tenant whose ranges are full, with a registry: it alone has trouble, which ends as it came (HAZARDS E9).

The same of one process that gives everything is in tests/test_world.py, of the registry's arithmetic in
tests/addressing/test_registry.py.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from romana_ovs.controller.duties import TENANT_SECONDS
from romana_ovs.kube.api.resources import ALLOCATIONS, NAMESPACES, PODS
from romana_ovs.kube.api.wanted import AllStatuses, SomeStatuses, TenantStatus
from romana_ovs.kube.items import ObjectId
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from tests.controller.server import Process, Server, furnished, settle

TINY = Settings(network=IPv4Network("10.9.0.0/24"), segment_bits=4, host_bits=2, endpoint_bits=2)
CROWD = 70
"""More pods than there are addresses at all."""


def put(server: Server, namespace: str, name: str) -> None:
    server.put(PODS, name, namespace=namespace, status={"phase": "Pending"}, spec={
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
    })


def started() -> tuple[Server, Process, Process]:
    """A registry, a node, and a namespace beside shop whose first pod has been there before the crowd came."""
    server = furnished(settings=TINY)
    server.put(NAMESPACES, "other")
    put(server, "other", "guest")
    registry, node = Process(server), Process(server, nodes=("n1",), registers=False)
    for process in (registry, node):
        process.start()
    registry.lead()
    rest(registry, node)
    return server, registry, node


def rest(*processes: Process) -> None:
    """Everything is done that is to be done, and all is told of it."""
    for _ in range(3):
        settle(processes)
        for process in processes:
            process.wait(TENANT_SECONDS)
    settle(processes)


def reasons(registry: Process) -> dict[str, str]:
    """What is said of every tenant in the end: why it is ready, or not."""
    found: dict[ObjectId, str] = {}
    for message in registry.told:
        if isinstance(message, AllStatuses | SomeStatuses):
            changed = message.statuses if isinstance(message, AllStatuses) else message.changed
            found |= {key: one.conditions[0].reason for key, one in changed.items() if isinstance(one, TenantStatus)}
    return {key.name: reason for key, reason in found.items()}


def addressed(node: Process, namespace: str, *names: str) -> list[str]:
    return [name for name in names if node.parts.address_of(PodKey(f"{namespace}/{name}")) is not None]


def test_a_full_tenant_has_a_condition_and_others_have_addresses_until_it_is_mended() -> None:
    server, registry, node = started()
    crowd = [f"p{number:02}" for number in range(CROWD)]
    for name in crowd:
        put(server, "shop", name)
    rest(registry, node)
    served = addressed(node, "shop", *crowd)
    assert 0 < len(served) < CROWD
    assert reasons(registry) == {"shop": "NoAddress", "other": "Allocated"}
    problems = [str(problem) for problem in node.parts.problems]
    assert len(problems) == CROWD - len(served) and all("Pod shop/" in one for one in problems)
    guests = [f"guest{number}" for number in range(3)]
    for name in guests:
        put(server, "other", name)
    rest(registry, node)
    assert addressed(node, "other", "guest", *guests) == ["guest", *guests]
    assert addressed(node, "shop", *crowd) == served, "nobody lost what they had"
    for name in crowd[: CROWD - len(served)]:
        server.remove(PODS, name, "shop")
    rest(registry, node)
    kept = crowd[CROWD - len(served):]
    assert addressed(node, "shop", *kept) == kept and node.parts.problems == ()
    assert reasons(registry) == {"shop": "Allocated", "other": "Allocated"}


def test_a_pod_that_crashes_again_and_again_uses_up_no_range() -> None:
    server, registry, node = started()
    before = server.of(ALLOCATIONS, "cluster")["spec"]["tenants"]
    for _ in range(4 * CROWD):
        server.remove(PODS, "guest", "other")
        put(server, "other", "guest")
        node.settle()
        assert addressed(node, "other", "guest") == ["guest"]
    rest(registry, node)
    assert server.of(ALLOCATIONS, "cluster")["spec"]["tenants"] == before
