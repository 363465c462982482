"""Changed large groups are deferred, and their previous version stays in the tables meanwhile."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from romana_ovs.controller.group_queue import MAX_ROWS_OF_NAMESPACE, GroupQueue
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import ClientGroup, Membership, NodePermissions, NodeView, ServerGroup
from tests.controller.server_groups import server
from tests.support.simulated_network import SimNetwork, SimPod


def view(*names: str) -> NodeView:
    lab = SimNetwork.of(*(SimPod(name.partition("/")[2], 1, at) for at, name in enumerate(names, 1)))
    pods = [
        replace(pod, key=PodKey(name), namespace=name.partition("/")[0])
        for pod, name in zip(lab.view(1).pods, sorted(names, key=lambda name: name.partition("/")[2]), strict=True)
    ]
    return replace(lab.view(1), pods=tuple(pods))


def verdicts(members: dict[str, ServerGroup], clients: dict[str, ClientGroup] | None = None) -> NodePermissions:
    clients = clients or {}
    return NodePermissions(
        members=MappingProxyType(
            {
                PodKey(name): Membership(group.number, clients[name].number if name in clients else 0)
                for name, group in members.items()
            }
        ),
        servers=tuple({group.number: group for group in members.values()}.values()),
        clients=tuple({group.number: group for group in clients.values()}.values()),
        tenancy=None,
    )


LARGE = MAX_ROWS_OF_NAMESPACE + 1
NAMES = ("red/a", "blue/b")
SMALL_RED, SMALL_BLUE = server(1), server(2)


def started() -> GroupQueue:
    queue = GroupQueue()
    queue.select(view(*NAMES), verdicts({"red/a": SMALL_RED, "blue/b": SMALL_BLUE}), 1)
    return queue


def numbers(compiled: NodePermissions) -> dict[str, int]:
    return {str(key): groups.server for key, groups in compiled.members.items()}


def test_in_the_first_round_no_group_is_deferred() -> None:
    desired = verdicts({"red/a": server(3, LARGE), "blue/b": SMALL_BLUE})
    queue = GroupQueue()
    assert queue.select(view(*NAMES), desired, 1) is desired
    assert not queue.postponed and queue.next_postponed() is None and queue.completed_round(1) == 1


def test_pods_of_a_deferred_group_keep_their_previous_groups() -> None:
    queue, new = started(), server(3, LARGE)
    deny = ServerGroup(4, (), ())
    desired = verdicts({"red/a": new, "blue/b": deny})
    compiled = queue.select(view(*NAMES), desired, 2)
    assert numbers(compiled) == {"red/a": 1, "blue/b": 4}, "blue's change is in these tables already"
    assert set(compiled.servers) == {SMALL_RED, deny}
    assert queue.postponed == {(True, 3): "red"} and queue.completed_round(2) == 1
    compiled = queue.select(view(*NAMES), desired, 2, extra=queue.next_postponed())
    assert compiled is desired and not queue.postponed and queue.completed_round(2) == 2


def test_a_new_pod_of_a_deferred_group_is_allowed_nothing() -> None:
    queue = started()
    compiled = queue.select(
        view(*NAMES, "red/n"),
        verdicts(
            {"red/a": SMALL_RED, "blue/b": SMALL_BLUE, "red/n": server(3, LARGE)},
            {
                "red/n": ClientGroup(7, server(3, LARGE, 9).ingress, deferred=True),
            },
        ),
        2,
    )
    assert numbers(compiled)["red/n"] == 3 and compiled.members[PodKey("red/n")].client == 7
    assert ServerGroup(3, (), ()) in compiled.servers and compiled.clients == (ClientGroup(7, (), deferred=False),)


def test_another_pod_of_the_name_inherits_no_groups() -> None:
    queue = started()
    all_pods = view(*NAMES)
    moved = replace(
        all_pods,
        pods=tuple(replace(pod, address=pod.address + 9) if pod.namespace == "red" else pod for pod in all_pods.pods),
    )
    compiled = queue.select(moved, verdicts({"red/a": server(3, LARGE), "blue/b": SMALL_BLUE}), 2)
    assert numbers(compiled)["red/a"] == 3 and ServerGroup(3, (), ()) in compiled.servers


def test_a_changed_large_group_keeps_its_previous_version() -> None:
    old, new = server(1, LARGE), server(1, LARGE, first=2)
    queue = GroupQueue()
    queue.select(view(*NAMES), verdicts({"red/a": old, "blue/b": SMALL_BLUE}), 1)
    compiled = queue.select(view(*NAMES), verdicts({"red/a": new, "blue/b": SMALL_BLUE}), 2)
    assert old in compiled.servers and new not in compiled.servers and queue.completed_round(2) == 1


def test_a_number_with_another_meaning_has_no_old_permissions() -> None:
    """Rules made to have the hash of another group's neither get its permissions nor change them."""
    queue = started()
    desired = verdicts({"red/a": server(3, LARGE), "blue/b": replace(SMALL_RED, ingress=())})
    compiled = queue.select(view(*NAMES), desired, 2)
    assert numbers(compiled)["red/a"] == 3 and ServerGroup(3, (), ()) in compiled.servers


def test_many_groups_of_one_namespace_leave_room_for_others() -> None:
    queue = started()
    names = [f"red/p{at}" for at in range(30)]
    groups = {name: server(100 + at, MAX_ROWS_OF_NAMESPACE // 10) for at, name in enumerate(names)}
    desired = verdicts({**groups, "red/a": SMALL_RED, "blue/b": server(5, MAX_ROWS_OF_NAMESPACE - 100)})
    compiled = queue.select(view(*NAMES, *names), desired, 2)
    assert numbers(compiled)["blue/b"] == 5
    assert len(queue.postponed) > 15 and set(queue.postponed.values()) == {"red"}


def test_deferred_groups_of_all_namespaces_take_turns() -> None:
    queue = started()
    names = [f"red/p{at}" for at in range(5)]
    groups = {name: server(100 + at, LARGE) for at, name in enumerate(names)}
    desired = verdicts({**groups, "red/a": SMALL_RED, "blue/b": server(5, LARGE)})
    all_pods, order = view(*NAMES, *names), []
    queue.select(all_pods, desired, 2)
    while (name := queue.next_postponed()) is not None:
        order.append(queue.postponed[name])
        queue.select(all_pods, desired, 2, extra=name)
    assert sorted(order) == ["blue", *["red"] * 5] and "blue" in order[:2]
    assert queue.completed_round(2) == 2


def test_a_group_that_always_changes_is_compiled() -> None:
    queue = started()
    for number in range(2, 12):
        desired = verdicts({"red/a": server(100 + number, LARGE), "blue/b": SMALL_BLUE})
        queue.select(view(*NAMES), desired, number)
        assert queue.completed_round(number) == number - 1
        queue.select(view(*NAMES), desired, number, extra=queue.next_postponed())
        assert queue.completed_round(number) == number
