"""Large groups are added and removed in chunks, beside tables that are right at any time."""

from __future__ import annotations

from ipaddress import IPv4Network
from types import MappingProxyType

import pytest

from romana_ovs.controller.group_chunks import CHUNK_ROWS, GroupChunks, IncomingGroup
from romana_ovs.controller.table_compiler import TableCompiler
from romana_ovs.engine import offline_facts
from romana_ovs.model.labels import EVERYTHING, Selector
from romana_ovs.model.objects import Direction, IpBlock, KubernetesPolicy, PodKey, PolicyPeer, PolicyRule
from romana_ovs.pipeline.compile import Program, group_entries
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.policy.view import ServerGroup
from tests.controller.server_groups import server
from tests.support.builders import cluster, pod
from tests.support.confirming_engine import ConfirmingEngine

NONE = frozenset[PodKey]()


def program(*groups: ServerGroup) -> Program:
    sections = {name: section for group in groups for name, (_, section) in group_entries(group).items()}
    return Program(MappingProxyType({**sections, "fixed": ()}), MappingProxyType({}))


SMALL, LARGE = server(1, 3), server(2, 2 * CHUNK_ROWS + 10)


def test_a_small_group_is_added_and_removed_at_once() -> None:
    chunks = GroupChunks()
    assert chunks.with_chunks(program(SMALL)).flows == program(SMALL).flows
    assert chunks.with_chunks(program()).flows == {} and not chunks.busy


def test_a_large_group_is_added_in_chunks() -> None:
    chunks, sizes = GroupChunks(), [0]
    chunks.with_chunks(program(SMALL))
    chunks.incoming = IncomingGroup((True, 2), LARGE, NONE, 1, group_entries(LARGE))
    while chunks.incoming.sent_rows < len(chunks.incoming.rows):
        chunks.advance()
        sizes.append(len(chunks.with_chunks(program(SMALL)).flows))
    assert [after - before for before, after in zip(sizes[1:], sizes[2:], strict=False)] == [CHUNK_ROWS, 10]
    complete = chunks.with_chunks(program(SMALL)).flows
    chunks.incoming = None
    assert chunks.with_chunks(program(SMALL, LARGE)).flows == complete, "no row is sent when pods are put into it"


def test_a_large_group_is_removed_in_chunks() -> None:
    chunks, sizes = GroupChunks(), []
    chunks.with_chunks(program(SMALL, LARGE))
    assert len(chunks.with_chunks(program(SMALL)).flows) == 2 * CHUNK_ROWS + 10 + 3
    while chunks.busy:
        chunks.advance()
        sizes.append(len(chunks.with_chunks(program(SMALL)).flows))
    assert sizes == [CHUNK_ROWS + 13, 3]


def test_a_reused_number_has_no_old_rows() -> None:
    chunks = GroupChunks()
    chunks.with_chunks(program(LARGE))
    chunks.with_chunks(program())
    assert chunks.busy
    reused = program(server(2, 3, first=9))
    assert chunks.with_chunks(reused).flows == reused.flows and not chunks.busy


def test_a_cancelled_group_is_removed() -> None:
    chunks = GroupChunks()
    chunks.with_chunks(program(SMALL))
    chunks.incoming = IncomingGroup((True, 2), LARGE, NONE, 1, group_entries(LARGE))
    chunks.advance()
    chunks.advance()
    chunks.cancel()
    sizes = []
    while chunks.busy:
        chunks.advance()
        sizes.append(len(chunks.with_chunks(program(SMALL)).flows))
    assert sizes[-1] == 3


def large(name: str, edit: int) -> KubernetesPolicy:
    peers = tuple(PolicyPeer(ip_block=IpBlock(IPv4Network((0xCB000000 + (at << 8) + edit, 32)))) for at in range(2000))
    return KubernetesPolicy("ns", name, EVERYTHING, frozenset({Direction.INGRESS}), ingress=(PolicyRule(peers=peers),))


def deny() -> KubernetesPolicy:
    return KubernetesPolicy("other", "d", Selector.of({}), frozenset({Direction.INGRESS}))


class CompiledNode:
    """One node's tables, round by round."""

    def __init__(self) -> None:
        self.engine, self.tables, self.round = ConfirmingEngine(cluster().settings), TableCompiler(), 0
        self.pods = (pod("a"), pod("other/b"))

    def compile(self, *policies: KubernetesPolicy) -> Program:
        at = cluster(*self.pods, *policies)
        self.engine.update(at)
        self.facts = offline_facts(at, at.nodes)
        self.round += 1
        compiled = self.tables.compile(self.engine.agents, self.facts["node1"], self.facts, self.round)
        assert compiled is not None
        self.completed_round = compiled.completed_round
        return compiled.program

    def compile_postponed(self) -> Program:
        postponed = self.tables.compile_postponed(["node1"])
        assert postponed is not None and postponed[1] is not None
        self.completed_round = postponed[1].completed_round
        return postponed[1].program


def fresh(*policies: KubernetesPolicy) -> dict[FlowKey, Flow]:
    return CompiledNode().compile(*policies).flows


def test_chunks_end_with_the_tables_of_all_at_once() -> None:
    node = CompiledNode()
    before = node.compile()
    without_group = node.compile(large("l", 1), deny())
    assert len(without_group.flows) < len(before.flows) + 100 and node.completed_round == 1
    assert without_group.flows != before.flows, "the deny-all of the other namespace is in it"
    program = without_group
    while node.tables.nodes_with_postponed:
        program = node.compile_postponed()
    assert program.flows == fresh(large("l", 1), deny()) and node.completed_round == node.round
    program = node.compile(deny())
    while node.tables.nodes_with_postponed:
        program = node.compile_postponed()
    assert program.flows == fresh(deny())


@pytest.mark.slow("a group of the largest size there may be, compiled anew after each chunk and each edit")
def test_edits_while_chunks_are_sent_come_into_force() -> None:
    node, rounds_behind = CompiledNode(), []
    node.compile()
    for edit in range(1, 40):
        node.compile(large("l", edit), deny())
        node.compile_postponed()
        rounds_behind.append(node.round - node.completed_round)
    assert max(rounds_behind[10:]) < 10, rounds_behind
    program = None
    while node.tables.nodes_with_postponed:
        program = node.compile_postponed()
    assert program is not None and program.flows == fresh(large("l", 39), deny())
