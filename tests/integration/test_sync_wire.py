"""What is sent to a real Open vSwitch comes back as the very same flow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from romana_ovs.pipeline.actions import (
    Output,
)
from romana_ovs.pipeline.cookies import OURS
from romana_ovs.pipeline.flow import FieldMatch, Flow
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.switch.wire import add_flow, delete_flow
from tests.integration.flow_corpus import WHY, corpus
from tests.support.private_ovs import Ovs, RawSwitch, by_key, needs_ovs

pytestmark = [pytest.mark.root, needs_ovs]


@pytest.fixture(scope="module")
def switch() -> Iterator[tuple[Ovs, RawSwitch]]:
    with Ovs() as ovs:
        ovs.bridge("br0")
        raw = RawSwitch(ovs, "br0")
        yield ovs, raw
        raw.close()


def test_every_flow_reads_back_as_it_was_sent(switch: tuple[Ovs, RawSwitch]) -> None:
    _, raw = switch
    flows = corpus()
    keys = {flow.key for flow in flows}
    assert len(keys) == len(flows)
    raw.send(b"".join(add_flow(flow, number) for number, flow in enumerate(flows)))
    assert raw.barrier() == []
    back = by_key(raw.read())
    for flow in flows:
        assert back.get(flow.key) == flow, flow
    assert len(back) == len(flows)


def test_ofctl_means_the_same_by_our_text(switch: tuple[Ovs, RawSwitch]) -> None:
    ovs, raw = switch
    # ovs-ofctl has one word, `later`, for two masks of the same meaning.
    flows = [flow for flow in corpus() if FieldMatch("nw_frag", 2, 2) not in flow.match]
    ovs.ofctl("br0", "del-flows")
    ovs.ofctl("br0", "add-flows", "-", stdin="\n".join(flow.text(TABLE_IDS) for flow in flows))
    back = by_key(raw.read())
    for flow in flows:
        assert back.get(flow.key) == flow, flow


def test_deletes_are_exact_and_leave_what_is_not_ours(switch: tuple[Ovs, RawSwitch]) -> None:
    ovs, raw = switch
    flows = corpus()
    ovs.ofctl("br0", "del-flows")
    raw.send(b"".join(add_flow(flow, number) for number, flow in enumerate(flows)))
    ovs.ofctl("br0", "add-flow", "table=5,priority=3,tcp,tp_dst=81,cookie=0x1234 actions=drop")
    ovs.ofctl("br0", "add-flow", "table=5,priority=100,tcp,tp_dst=82,cookie=0x1234 actions=NORMAL,learn(table=1)")
    foreign = [flow for flow in raw.read() if not flow.ours]
    assert len(foreign) == 2
    raw.send(b"".join(delete_flow(item.flow, 9) for item in foreign))
    raw.send(b"".join(delete_flow(flow, number) for number, flow in enumerate(flows)))
    assert raw.barrier() == []
    assert raw.read() == foreign


def test_unknown_flows_with_our_cookie_can_be_deleted(switch: tuple[Ovs, RawSwitch]) -> None:
    ovs, raw = switch
    ovs.ofctl("br0", "del-flows")
    lines = [
        "table=60,priority=3,ipv6,ipv6_src=fe80::/10,cookie=0x524f000000000001 actions=NORMAL",
        "table=2,priority=3,pkt_mark=0x5/0xf,dl_vlan=5,ip,cookie=0x524f000000000001 "
        "actions=dec_ttl,learn(table=3),goto_table:9",
        "table=2,priority=4,idle_timeout=600,cookie=0x524f000000000001 actions=output:1",
    ]
    ovs.ofctl("br0", "add-flows", "-", stdin="\n".join(lines))
    ours = by_key(raw.read())
    assert len(ours) == len(lines)
    assert Flow("L3Forward", 4, (), (Output(1),), OURS | 1, WHY) not in ours.values()
    raw.send(b"".join(delete_flow(flow, 1) for flow in ours.values()))
    assert raw.barrier() == []
    assert raw.read() == []
