"""Implements `romana-ovs ipam DIR`: address ranges of tenants and tiers, their use, and what is left.

With `--state FILE` pods keep the allocations saved in the file; a missing file is created, an existing one is only
read. Exit code 1 when a pod or a node gets no number or address.

With `--json`:
- `plan`: `{"network", "segment_bits", "host_bits", "endpoint_bits", "node_addresses"}`, the last being the range of
  the nodes' own addresses;
- `tenants`: `[{"tenant", "ranges", "indexes", "spare_indexes", "tiers"}]`, where `ranges` are CIDRs, `indexes` the
  segment indexes in them, `spare_indexes` how many of these no tier has yet, and `tiers`
  `[{"tier", "number", "ranges", "indexes", "used", "left"}]`: `number` is the segment's permanent number, `used` counts
  allocated addresses, `left` the free ones in the ranges on the present nodes;
- `nodes`: `[{"node", "number", "address", "pods"}]`, `address` being the node's own towards its pods;
- `foreign`: `[{"pod", "node", "address"}]`, pod addresses that the address plan did not allocate;
- `left`: `{"segment_indexes", "host_numbers"}` that are free;
- `problems`: `[{"kind", "name", "problem"}]`;
- `pods`, with `--pods` only: `[{"pod", "node", "address", "mac"}]`, every pod that has an address.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from typing import Any

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.usage import SegmentUse, TenantUse, Usage
from romana_ovs.cli.common import add_folder, exit_code, load_folder, print_json, warn_of_left_out
from romana_ovs.cli.offline import offline_engine
from romana_ovs.model.errors import Problem
from romana_ovs.state import StateFile

HELP = "address ranges per tenant and tier, their use, and what is left"
WIDTH = 80
TIER_WIDTH = 26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ipam`."""
    add_folder(parser)
    parser.add_argument("--pods", action="store_true", help="list every pod with address and node too (JSON: and MAC)")


def run(args: argparse.Namespace) -> int:
    """Returns exit code 1 when a pod or node gets no number or address, or as `exit_code` says, else 0.

    Raises InputError when the folder or the state cannot be used.
    """
    loaded = load_folder(args)
    file = StateFile(args.state) if args.state is not None else None
    state = file.load() if file is not None else None
    engine, _ = offline_engine(loaded.cluster, state)
    if file is not None and state is None:
        file.save(engine.to_json())
    usage, problems = engine.usage, engine.problems
    pods = sorted(engine.agents.endpoints.items()) if args.pods else []
    if args.json:
        listed = {"pods": [_pod_json(end, engine.plan) for _, end in pods]} if args.pods else {}
        print_json(as_json(usage, problems) | listed)
    else:
        print("\n".join([*as_text(usage), *_pods_text([end for _, end in pods])]))
    if args.strict:
        warn_of_left_out(loaded)
    return exit_code(1 if problems else 0, loaded, strict=args.strict)


def as_json(usage: Usage, problems: Iterable[Problem]) -> dict[str, Any]:
    """`usage` and `problems` as the module's docstring describes."""
    plan = usage.plan
    return {
        "plan": {
            "network": str(plan.network),
            "segment_bits": plan.segment_bits,
            "host_bits": plan.host_bits,
            "endpoint_bits": plan.endpoint_bits,
            "node_addresses": str(plan.node_addresses()),
        },
        "tenants": [_tenant_json(tenant) for tenant in usage.tenants],
        "nodes": [
            {"node": each.node, "number": each.number, "address": str(each.address), "pods": each.pods}
            for each in usage.nodes
        ],
        "foreign": [{"pod": end.pod, "node": end.node, "address": str(end.address)} for end in usage.foreign],
        "left": {"segment_indexes": usage.indexes_left, "host_numbers": usage.hosts_left},
        "problems": [{"kind": each.kind, "name": each.name, "problem": each.reason} for each in problems],
    }


def as_text(usage: Usage) -> Iterator[str]:
    """Lines of text, at most 80 columns wide."""
    plan = usage.plan
    yield from _wrapped(
        f"{plan.network} = {plan.segment_bits} segment bits, {plan.host_bits} host bits, {plan.endpoint_bits} endpoint "
        f"bits; {plan.node_addresses()} is for the nodes themselves."
    )
    for tenant in usage.tenants:
        yield ""
        yield from _tenant_text(tenant)
    yield ""
    yield f"{'node':<{TIER_WIDTH}}  number  pods  address"
    for node in usage.nodes:
        yield from _row(node.node, f"{node.number:>6}  {node.pods:>4}  {node.address}")
    if usage.foreign:
        yield ""
        yield f"{'pod with a foreign address':<{TIER_WIDTH}}  address"
        for end in usage.foreign:
            yield from _row(end.pod, str(end.address))
    yield ""
    yield from _wrapped(
        f"Left: {usage.indexes_left} of {plan.segments - 1} segment indexes, "
        f"{usage.hosts_left} of {plan.hosts} host numbers."
    )


def _pods_text(ends: list[Endpoint]) -> Iterator[str]:
    """A line for each pod; its MAC is `0a:58` and the address, unless it brings one of its own."""
    if ends:
        yield ""
        yield f"{'pod':<{TIER_WIDTH}}  {'address':<15}  node"
    for end in ends:
        yield from _row(end.pod, f"{end.address!s:<15}  {textwrap.shorten(end.node, 35, placeholder='...')}")


def _pod_json(end: Endpoint, plan: AddressPlan) -> dict[str, Any]:
    return {"pod": end.pod, "node": end.node, "address": str(end.address), "mac": plan.mac(end.address)}


def _tenant_text(tenant: TenantUse) -> Iterator[str]:
    name = f"tenant {tenant.tenant}" if tenant.tenant else "pods without tenant"
    spare = f"{tenant.spare} of {len(tenant.indexes)} segment indexes spare"
    yield from _wrapped(f"{name}: {_joined(tenant.ranges)}; {spare}")
    yield f"{'tier':<{TIER_WIDTH}}  number   used    left  ranges"
    for segment in tenant.segments:
        yield from _segment_text(segment)


def _segment_text(segment: SegmentUse) -> Iterator[str]:
    figures = f"{segment.number:>6}  {segment.used:>5}  {segment.left:>6}  "
    indent = TIER_WIDTH + 2 + len(figures)
    first, *more = textwrap.wrap(_joined(segment.ranges), WIDTH - indent)
    yield from _row(segment.tier, figures + first)
    for line in more:
        yield " " * indent + line


def _row(name: str, rest: str) -> Iterator[str]:
    """A row of a table; a name that is too long for its column has lines of its own before it."""
    if len(name) > TIER_WIDTH:
        yield from textwrap.wrap(name, WIDTH)
        name = ""
    yield f"{name:<{TIER_WIDTH}}  {rest}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _joined(ranges: Iterable[IPv4Network]) -> str:
    return ", ".join(str(network) for network in ranges)


def _tenant_json(tenant: TenantUse) -> dict[str, Any]:
    return {
        "tenant": tenant.tenant,
        "ranges": [str(network) for network in tenant.ranges],
        "indexes": list(tenant.indexes),
        "spare_indexes": tenant.spare,
        "tiers": [
            {
                "tier": segment.tier,
                "number": segment.number,
                "ranges": [str(network) for network in segment.ranges],
                "indexes": list(segment.indexes),
                "used": segment.used,
                "left": segment.left,
            }
            for segment in tenant.segments
        ],
    }
