"""A tenant whose ranges are full, with a registry: it alone has trouble, which ends as it came (docs/hazards.md E9).

The same of one process that gives everything is in tests/engine/test_engine.py, of the registry's arithmetic in
tests/addressing/test_registry.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network

from romana_ovs.addressing.segments import MAX_TIERS
from romana_ovs.controller.status_reporter import TENANT_SECONDS
from romana_ovs.kube.api.desired import ReplaceStatuses, TenantStatus, UpdateStatuses
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NAMESPACES, PODS, POLICIES
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from tests.support.in_memory_server import ControllerProcess, MemoryServer, server_with_pods, settle

TINY = Settings(network=IPv4Network("10.9.0.0/24"), segment_bits=4, host_bits=2, endpoint_bits=2)
CROWD = 70
"""More pods than there are addresses at all."""


def put(server: MemoryServer, namespace: str, name: str) -> None:
    server.put(
        PODS,
        name,
        namespace=namespace,
        status={"phase": "Pending"},
        spec={
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "i"}],
        },
    )


def started(settings: Settings = TINY) -> tuple[MemoryServer, ControllerProcess, ControllerProcess]:
    """A registry, a node, and a namespace beside shop with a pod that is older than the crowd."""
    server = server_with_pods(settings=settings)
    server.put(NAMESPACES, "other")
    put(server, "other", "guest")
    registry, node = ControllerProcess(server), ControllerProcess(server, nodes=("n1",), runs_registry=False)
    for process in (registry, node):
        process.start()
    registry.lead()
    rest(registry, node)
    return server, registry, node


def ask(server: MemoryServer, first: int = 0, many: int = 3400) -> None:
    """A policy of shop with so many questions, more than fit into an object, from the one of number `first` on."""
    prefix = ".".join(letter * 60 for letter in "abcd")
    keys = [f"{prefix}/{'k' * 50}{number:05}" for number in range(first, first + many)]
    peers = [{"podSelector": {"matchExpressions": [{"key": key, "operator": "Exists"}]}} for key in keys]
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]}
    assert len(json.dumps(spec)) < 1_500_000, "an API server takes it"
    server.put(POLICIES, "asks", namespace="shop", spec=spec)


def rest(*processes: ControllerProcess) -> None:
    """Wait until all is computed and reported."""
    for _ in range(3):
        settle(processes)
        for process in processes:
            process.wait(TENANT_SECONDS)
    settle(processes)


def reasons(registry: ControllerProcess) -> dict[str, str]:
    """The last reason of each tenant's condition Ready."""
    reasons: dict[ObjectId, str] = {}
    for message in registry.sent:
        if isinstance(message, ReplaceStatuses | UpdateStatuses):
            changed = message.statuses if isinstance(message, ReplaceStatuses) else message.changed
            reasons |= {
                key: status.conditions[0].reason for key, status in changed.items() if isinstance(status, TenantStatus)
            }
    return {key.name: reason for key, reason in reasons.items()}


def addressed(node: ControllerProcess, namespace: str, *names: str) -> list[str]:
    return [name for name in names if node.agents.address_of(PodKey(f"{namespace}/{name}")) is not None]


def test_a_full_tenant_has_a_condition_and_harms_no_other() -> None:
    server, registry, node = started()
    crowd = [f"p{number:02}" for number in range(CROWD)]
    for name in crowd:
        put(server, "shop", name)
    rest(registry, node)
    served = addressed(node, "shop", *crowd)
    assert 0 < len(served) < CROWD
    assert reasons(registry) == {"shop": "NoAddress", "other": "Allocated"}
    problems = [str(problem) for problem in node.agents.problems]
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
    kept = crowd[CROWD - len(served) :]
    assert addressed(node, "shop", *kept) == kept and node.agents.problems == ()
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


def test_a_tenant_with_ever_new_tiers_leaves_ranges_for_others() -> None:
    """With one pod at a time: what tier it is in is its own choice, and no tier's number is ever taken back."""
    server, registry, node = started(replace(TINY, network=IPv4Network("10.9.0.0/22"), segment_bits=6))
    for number in range(80):
        server.put(
            PODS,
            "p",
            namespace="shop",
            labels={"tier": f"t{number}"},
            status={"phase": "Pending"},
            spec={"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        )
        settle([registry, node])
        assert bool(addressed(node, "shop", "p")) is (number < MAX_TIERS)
        server.remove(PODS, "p", "shop")
        settle([registry, node])
    assert newcomer(server, registry, node)
    server.put(
        PODS,
        "p",
        namespace="shop",
        labels={"tier": "t1"},
        status={"phase": "Pending"},
        spec={"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    )
    rest(registry, node)
    assert addressed(node, "shop", "p") == ["p"], "what it has it keeps"


def newcomer(server: MemoryServer, *processes: ControllerProcess) -> bool:
    """Whether the first pod of a namespace that nobody has seen gets an address."""
    name = f"new{len(server.names(NAMESPACES))}"
    server.put(NAMESPACES, name)
    put(server, name, "guest")
    rest(*processes)
    return addressed(processes[-1], name, "guest") == ["guest"]


def test_a_policy_too_large_for_an_object_blocks_no_other() -> None:
    """docs/hazards.md E10."""
    server, registry, node = started()
    put(server, "shop", "p")
    ask(server)
    assert newcomer(server, registry, node)
    assert [str(one) for one in registry.reconciler.problems] == [
        "Namespace shop: policies use 3400 label requirements on its pods, of which 442 fit: rules that need the "
        "others match no peers by them"
    ]
    assert not node.agents.awaits_registry, "what has no room is nothing to wait for"
    server.remove(POLICIES, "asks", "shop")
    rest(registry, node)
    assert registry.reconciler.problems == () and not server.of(CLASS_SETS, "shop")["spec"]["requirements"]


def test_a_policy_that_always_changes_blocks_no_other() -> None:
    server, registry, node = started()
    put(server, "shop", "p")
    node.deaf = True
    for turn in range(8):
        ask(server, first=10_000 * turn, many=2000)
        rest(registry, node)
    node.deaf = False
    assert newcomer(server, registry, node)
    asked = server.of(CLASS_SETS, "shop")["spec"]["requirements"]
    assert {requirement["stage"] for requirement in asked} == {"Active"}
    assert {requirement["key"][-5:] for requirement in asked} == {str(70_000 + number) for number in range(len(asked))}


def test_labels_of_deleted_pods_block_no_other_namespace() -> None:
    """What the last pod of a class was is remembered, for the next one like it."""
    server, registry, node = started()
    put(server, "shop", "p")
    peer = {"podSelector": {"matchLabels": {"k": "large"}}}
    server.put(POLICIES, "p", namespace="shop", spec={"podSelector": {}, "ingress": [{"from": [peer]}]})
    rest(registry, node)
    server.put(
        PODS,
        "large",
        namespace="shop",
        labels={"k": "large", **{f"l{at}": "x" * 63 for at in range(18_000)}},
        status={"phase": "Pending"},
        spec={"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    )
    rest(registry, node)
    server.remove(PODS, "large", "shop")
    rest(registry, node)
    assert registry.reconciler.problems == () and newcomer(server, registry, node)
