"""Published numbers and a report with every field set."""

from __future__ import annotations

from ipaddress import IPv4Address

from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import identity
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import Claim, ClassSet, Published, Stage
from romana_ovs.registry_types.report import Observed, Report

ETCD_LIMIT = 1_500_000
WEB, EXISTS = LabelRequirement("app", frozenset({"web"})), LabelRequirement("app")
ONE, TWO = identity(1, 1), identity(1, 2)
ALPHA = ClassSet(
    namespace="alpha",
    requirements={EXISTS: Stage.RETIRING, WEB: Stage.ACTIVE},
    classes={ONE: frozenset(), TWO: frozenset({WEB, EXISTS})},
    pending=frozenset({TWO}),
    overrides={PodKey("alpha/a"): TWO},
    tombstones=((1, Labels({"app": "web"})),),
    retired=frozenset({identity(1, 9)}),
    epoch=3,
    revision=7,
)
PUBLISHED = Published(
    plan=AddressPlan.of(Settings()),
    epoch=3,
    writer="a",
    revision=8,
    blocks={"": (Block(8, 4),), "alpha": (Block(4, 4),), "t1": (Block(1, 1), Block(2, 2))},
    indexes={SegmentKey("alpha", "default"): (4, 7), SegmentKey("t1", "x/y"): (1,)},
    next_class={1: 10, 4: 2},
    hosts={"node1": 0, "node2": 2},
    free_hosts=(4, 3),
    retired_hosts=frozenset({1}),
    foreign={IPv4Address("10.0.0.9"): Claim("node1", granted=True), IPv4Address("1.2.3.4"): Claim("x", granted=False)},
    class_sets={"alpha": ALPHA},
)
REPORT = Report(
    node="node1",
    acknowledged=8,
    released=7,
    exhausted_segments={SegmentKey("alpha", "default"): 2},
    foreign=frozenset({IPv4Address("10.0.0.9")}),
    conflicting=frozenset({IPv4Address("10.0.0.10")}),
    observed=Observed(sctp_ports=False, tenants_at_limit=frozenset({"alpha", "t1"})),
)
