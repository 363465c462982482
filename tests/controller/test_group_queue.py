"""Large groups wait for a turn of their own, and what they were stands meanwhile."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from romana_ovs.controller.group_queue import ROOM, GroupQueue
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import ClientGroup, Membership, NodeView, ServerGroup, Verdicts
from tests.controller.server_groups import server
from tests.support.simulated_network import SimNetwork, SimPod


def view(*names: str) -> NodeView:
    lab = SimNetwork.of(*(SimPod(name.partition("/")[2], 1, at) for at, name in enumerate(names, 1)))
    pods = [
        replace(pod, key=PodKey(name), namespace=name.partition("/")[0])
        for pod, name in zip(lab.view(1).pods, sorted(names, key=lambda name: name.partition("/")[2]), strict=True)
    ]
    return replace(lab.view(1), pods=tuple(pods))


def verdicts(members: dict[str, ServerGroup], clients: dict[str, ClientGroup] | None = None) -> Verdicts:
    clients = clients or {}
    return Verdicts(
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


LARGE = ROOM + 1
NAMES = ("red/a", "blue/b")
SMALL_RED, SMALL_BLUE = server(1), server(2)


def started() -> GroupQueue:
    turns = GroupQueue()
    turns.take(view(*NAMES), verdicts({"red/a": SMALL_RED, "blue/b": SMALL_BLUE}), 1)
    return turns


def numbers(standing: Verdicts) -> dict[str, int]:
    return {str(key): groups.server for key, groups in standing.members.items()}


def test_at_first_everything_is_made_at_once() -> None:
    wanted = verdicts({"red/a": server(3, LARGE), "blue/b": SMALL_BLUE})
    turns = GroupQueue()
    assert turns.take(view(*NAMES), wanted, 1) is wanted
    assert not turns.put_off and turns.next() is None and turns.current(1) == 1


def test_a_large_group_waits_and_its_pods_keep_what_they_had() -> None:
    turns, new = started(), server(3, LARGE)
    deny = ServerGroup(4, (), ())
    wanted = verdicts({"red/a": new, "blue/b": deny})
    standing = turns.take(view(*NAMES), wanted, 2)
    assert numbers(standing) == {"red/a": 1, "blue/b": 4}, "blue's change is in these tables already"
    assert set(standing.servers) == {SMALL_RED, deny}
    assert turns.put_off == {(True, 3): "red"} and turns.current(2) == 1
    standing = turns.take(view(*NAMES), wanted, 2, extra=turns.next())
    assert standing is wanted and not turns.put_off and turns.current(2) == 2


def test_a_pod_without_a_group_is_admitted_nothing_before_it() -> None:
    turns = started()
    standing = turns.take(
        view(*NAMES, "red/n"),
        verdicts(
            {"red/a": SMALL_RED, "blue/b": SMALL_BLUE, "red/n": server(3, LARGE)},
            {
                "red/n": ClientGroup(7, server(3, LARGE, 9).ingress, deferred=True),
            },
        ),
        2,
    )
    assert numbers(standing)["red/n"] == 3 and standing.members[PodKey("red/n")].client == 7
    assert ServerGroup(3, (), ()) in standing.servers and standing.clients == (ClientGroup(7, (), deferred=False),)


def test_another_pod_of_the_name_inherits_nothing() -> None:
    turns = started()
    here = view(*NAMES)
    moved = replace(
        here, pods=tuple(replace(pod, address=pod.address + 9) if pod.namespace == "red" else pod for pod in here.pods)
    )
    standing = turns.take(moved, verdicts({"red/a": server(3, LARGE), "blue/b": SMALL_BLUE}), 2)
    assert numbers(standing)["red/a"] == 3 and ServerGroup(3, (), ()) in standing.servers


def test_a_group_that_means_more_identities_now_stands_as_it_was() -> None:
    old, new = server(1, LARGE), server(1, LARGE, first=2)
    turns = GroupQueue()
    turns.take(view(*NAMES), verdicts({"red/a": old, "blue/b": SMALL_BLUE}), 1)
    standing = turns.take(view(*NAMES), verdicts({"red/a": new, "blue/b": SMALL_BLUE}), 2)
    assert old in standing.servers and new not in standing.servers and turns.current(2) == 1


def test_a_number_with_another_meaning_has_no_old_permissions() -> None:
    """Whoever finds rules whose hash is that of another's group gets nothing of it, and gives nothing to it."""
    turns = started()
    wanted = verdicts({"red/a": server(3, LARGE), "blue/b": replace(SMALL_RED, ingress=())})
    standing = turns.take(view(*NAMES), wanted, 2)
    assert numbers(standing)["red/a"] == 3 and ServerGroup(3, (), ()) in standing.servers


def test_many_groups_of_one_namespace_leave_room_for_others() -> None:
    turns = started()
    names = [f"red/p{at}" for at in range(30)]
    groups = {name: server(100 + at, ROOM // 10) for at, name in enumerate(names)}
    wanted = verdicts({**groups, "red/a": SMALL_RED, "blue/b": server(5, ROOM - 100)})
    standing = turns.take(view(*NAMES, *names), wanted, 2)
    assert numbers(standing)["blue/b"] == 5
    assert len(turns.put_off) > 15 and set(turns.put_off.values()) == {"red"}


def test_turns_go_round_the_namespaces_and_end() -> None:
    turns = started()
    names = [f"red/p{at}" for at in range(5)]
    groups = {name: server(100 + at, LARGE) for at, name in enumerate(names)}
    wanted = verdicts({**groups, "red/a": SMALL_RED, "blue/b": server(5, LARGE)})
    here, order = view(*NAMES, *names), []
    turns.take(here, wanted, 2)
    while (name := turns.next()) is not None:
        order.append(turns.put_off[name])
        turns.take(here, wanted, 2, extra=name)
    assert sorted(order) == ["blue", *["red"] * 5] and "blue" in order[:2]
    assert turns.current(2) == 2


def test_a_group_that_always_changes_has_its_turns() -> None:
    turns = started()
    for number in range(2, 12):
        wanted = verdicts({"red/a": server(100 + number, LARGE), "blue/b": SMALL_BLUE})
        turns.take(view(*NAMES), wanted, number)
        assert turns.current(number) == number - 1
        turns.take(view(*NAMES), wanted, number, extra=turns.next())
        assert turns.current(number) == number
