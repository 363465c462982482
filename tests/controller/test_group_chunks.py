"""Large groups come and go in pieces, and what stands beside them is never wrong."""

from __future__ import annotations

from ipaddress import IPv4Network
from types import MappingProxyType

from romana_ovs.controller.group_chunks import PIECE, GroupChunks, Incoming
from romana_ovs.controller.table_compiler import TableCompiler
from romana_ovs.engine import offline_facts
from romana_ovs.model.labels import EVERYTHING, Selector
from romana_ovs.model.objects import Direction, IpBlock, KubernetesPolicy, PodKey, PolicyPeer, PolicyRule
from romana_ovs.pipeline.compile import Program, group_entries
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.policy.view import ServerGroup
from tests.controller.server_groups import server
from tests.support.builders import cluster, pod
from tests.support.confirming_world import World

NONE = frozenset[PodKey]()


def program(*groups: ServerGroup) -> Program:
    sections = {name: section for group in groups for name, (_, section) in group_entries(group).items()}
    return Program(MappingProxyType({**sections, "fixed": ()}), MappingProxyType({}))


SMALL, LARGE = server(1, 3), server(2, 2 * PIECE + 10)


def test_what_is_small_comes_and_goes_at_once() -> None:
    pace = GroupChunks()
    assert pace.shown(program(SMALL)).flows == program(SMALL).flows
    assert pace.shown(program()).flows == {} and not pace.busy


def test_a_large_group_comes_in_pieces_none_of_which_is_larger() -> None:
    pace, sizes = GroupChunks(), [0]
    pace.shown(program(SMALL))
    pace.rising = Incoming((True, 2), LARGE, NONE, 1, group_entries(LARGE))
    while pace.rising.there < len(pace.rising.rows):
        pace.step()
        sizes.append(len(pace.shown(program(SMALL)).flows))
    assert [after - before for before, after in zip(sizes[1:], sizes[2:], strict=False)] == [PIECE, 10]
    risen = pace.shown(program(SMALL)).flows
    pace.rising = None
    assert pace.shown(program(SMALL, LARGE)).flows == risen, "no row is sent when the pods come to be in it"


def test_a_large_group_goes_in_pieces() -> None:
    pace, sizes = GroupChunks(), []
    pace.shown(program(SMALL, LARGE))
    assert len(pace.shown(program(SMALL)).flows) == 2 * PIECE + 10 + 3
    while pace.busy:
        pace.step()
        sizes.append(len(pace.shown(program(SMALL)).flows))
    assert sizes == [PIECE + 13, 3]


def test_a_number_that_is_wanted_again_has_no_old_rows_beside_it() -> None:
    pace = GroupChunks()
    pace.shown(program(LARGE))
    pace.shown(program())
    assert pace.busy
    again = program(server(2, 3, first=9))
    assert pace.shown(again).flows == again.flows and not pace.busy


def test_what_is_not_wanted_any_more_while_it_comes_goes() -> None:
    pace = GroupChunks()
    pace.shown(program(SMALL))
    pace.rising = Incoming((True, 2), LARGE, NONE, 1, group_entries(LARGE))
    pace.step()
    pace.step()
    pace.drop()
    seen = []
    while pace.busy:
        pace.step()
        seen.append(len(pace.shown(program(SMALL)).flows))
    assert seen[-1] == 3


def large(name: str, edit: int) -> KubernetesPolicy:
    peers = tuple(PolicyPeer(ip_block=IpBlock(IPv4Network((0xCB000000 + (at << 8) + edit, 32)))) for at in range(2000))
    return KubernetesPolicy("ns", name, EVERYTHING, frozenset({Direction.INGRESS}), ingress=(PolicyRule(peers=peers),))


def deny() -> KubernetesPolicy:
    return KubernetesPolicy("other", "d", Selector.of({}), frozenset({Direction.INGRESS}))


class Bench:
    """One node's tables, round by round."""

    def __init__(self) -> None:
        self.world, self.tables, self.round = World(cluster().settings), TableCompiler(), 0
        self.pods = (pod("a"), pod("other/b"))

    def follow(self, *policies: KubernetesPolicy) -> Program:
        at = cluster(*self.pods, *policies)
        self.world.update(at)
        self.facts = offline_facts(at, at.nodes)
        self.round += 1
        made = self.tables.compile(self.world.agents, self.facts["node1"], self.facts, self.round)
        assert made is not None
        self.current = made.current
        return made.program

    def turn(self) -> Program:
        found = self.tables.compile_deferred(["node1"])
        assert found is not None and found[1] is not None
        self.current = found[1].current
        return found[1].program


def fresh(*policies: KubernetesPolicy) -> dict[FlowKey, Flow]:
    return Bench().follow(*policies).flows


def test_chunks_end_with_the_tables_of_all_at_once() -> None:
    bench = Bench()
    before = bench.follow()
    shown = bench.follow(large("l", 1), deny())
    assert len(shown.flows) < len(before.flows) + 100 and bench.current == 1
    assert shown.flows != before.flows, "the deny-all of the other namespace is in it"
    held = shown
    while bench.tables.busy:
        held = bench.turn()
    assert held.flows == fresh(large("l", 1), deny()) and bench.current == bench.round
    held = bench.follow(deny())
    while bench.tables.busy:
        held = bench.turn()
    assert held.flows == fresh(deny())


def test_who_edits_in_the_midst_of_it_is_served_all_the_same() -> None:
    bench, behind = Bench(), []
    bench.follow()
    for edit in range(1, 40):
        bench.follow(large("l", edit), deny())
        bench.turn()
        behind.append(bench.round - bench.current)
    assert max(behind[10:]) < 10, behind
    held = None
    while bench.tables.busy:
        held = bench.turn()
    assert held is not None and held.flows == fresh(large("l", 39), deny())
