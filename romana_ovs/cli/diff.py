"""Implements `romana-ovs diff DIR NEWDIR`: what a change would open and close, and its cost for each node.

NEWDIR is read as an edit of DIR: pods that stay keep their node, address, port and numbers, and an object that is
invalid in NEWDIR keeps its last valid version, as live. With `--json`:

`{"ports": [...], "opened": [{"from", "to", "port"}], "closed": [{"from", "to", "port"}],
"nodes": {NAME: {"added", "removed", "changed", "before", "after"}}}`: pods as `namespace/name`, ports as `80/tcp`;
the five numbers of a node are flows. The text has a line for each pair of workloads, with `--all` for each pair of
pods and port. Exits 1 when anything differs, 0 when nothing does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from romana_ovs.cli.addresses import saved_state
from romana_ovs.cli.caveats import caveats, problems_json
from romana_ovs.cli.common import (
    add_folder,
    exit_code,
    load_into,
    print_json,
    warn,
    warn_of_left_out,
)
from romana_ovs.cli.left_out import left_out_json
from romana_ovs.cli.matrix import parse_ports
from romana_ovs.cli.offline import compile_node_tables, offline_engine
from romana_ovs.cli.progress import activity
from romana_ovs.cli.workloads import display_names, summary
from romana_ovs.config import load_settings
from romana_ovs.engine import Engine, offline_facts
from romana_ovs.engine.offline import FIRST_LINK_PORT, FIRST_POD_PORT
from romana_ovs.kube.manifests.files import STDIN
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import CompileCache
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.policy.matrix import PodPath, container_ports, difference, reachability

NO_PORTS = "No path is compared, as no container declares a port: name some with --ports 80/tcp."
HELP = "what a change of manifests would open and close, and its cost in flows per node"

Key = TypeVar("Key")
Tables = dict[FlowKey, Flow]


@dataclass(frozen=True, slots=True)
class Cost:
    """Flows of one node: to add, to remove, to change in place, and how many there are before and after."""

    added: int
    removed: int
    changed: int
    before: int
    after: int

    @property
    def is_empty(self) -> bool:
        """Whether no flow of the node changes."""
        return not (self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Change:
    """Everything that differs between two folders; paths are sorted, nodes by name."""

    ports: tuple[PortRef, ...]
    opened: tuple[PodPath, ...]
    closed: tuple[PodPath, ...]
    nodes: Mapping[str, Cost]

    @property
    def is_empty(self) -> bool:
        """Whether no path and no flow differs."""
        return not (self.opened or self.closed) and all(cost.is_empty for cost in self.nodes.values())

    def to_json(self) -> dict[str, Any]:
        """As JSON values, in the form of the module's docstring."""
        return {
            "ports": [str(port) for port in self.ports],
            "opened": [path.to_json() for path in self.opened],
            "closed": [path.to_json() for path in self.closed],
            "nodes": {node: asdict(cost) for node, cost in self.nodes.items()},
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `diff`."""
    add_folder(parser)
    parser.add_argument("new", metavar="NEWDIR", type=Path, help="DIR as it would be after the change; one may be -")
    parser.add_argument("--all", action="store_true", help="every pair of pods and port, not pairs of workloads")
    parser.add_argument("--ports", metavar="PORTS", help="these ports instead of those the containers of both declare")


def run(args: argparse.Namespace) -> int:
    """Returns exit code 1 when anything differs, else 0.

    Raises InputError when a folder, the state or the ports cannot be used.
    """
    ports = parse_ports(args.ports) if args.ports is not None else None
    before, after = _snapshots(args)
    change = compare(before.cluster, after.cluster, ports=ports, state=saved_state(args.state))
    warn_of_left_out(before, after)
    if args.json:
        print_json(change.to_json() | left_out_json(before, after) | problems_json(before, after))
    else:
        print("\n".join(_lines(change, display_names(before.cluster, after.cluster) if not args.all else None)))
        for caveat in caveats(before, after):
            print(f"\n{caveat}")
    return exit_code(0 if change.is_empty else 1, before, after, strict=args.strict)


def compare(
    before: Cluster, after: Cluster, *, ports: tuple[PortRef, ...] | None = None, state: Mapping[str, Any] | None = None
) -> Change:
    """The change from `before` to `after`; `ports` None: those that containers of either declare.

    Raises as `offline_engine` does.
    """
    if ports is None:
        ports = tuple(dict.fromkeys([*container_ports(before), *container_ports(after)]))
    engine, facts = offline_engine(before, state)
    old_tables, caches = _tables(engine, facts, {})
    old_matrix = reachability(before, _addresses(engine, before), ports)
    engine.step(after)
    new_facts = keep_port_numbers(facts, offline_facts(after, engine.hosts))
    new_tables, _ = _tables(engine, new_facts, caches)
    opened, closed = difference(old_matrix, reachability(after, _addresses(engine, after), ports))
    nodes = {
        node: _cost(old_tables.get(node, {}), new_tables.get(node, {}))
        for node in sorted(old_tables.keys() | new_tables.keys())
    }
    return Change(ports, tuple(opened), tuple(closed), nodes)


def keep_port_numbers(before: Mapping[str, BridgeFacts], after: Mapping[str, BridgeFacts]) -> dict[str, BridgeFacts]:
    """The bridges of `after`, with the port numbers of `before` for every pod and link that is in both."""
    bridges = {}
    for node, own in after.items():
        known = before.get(node)
        if known is None:
            bridges[node] = own
            continue
        old = {key: port.ofport for key, port in known.pod_ports.items()}
        numbers = _numbered(own.pod_ports, old, FIRST_POD_PORT)
        links = _numbered(own.links, known.links, FIRST_LINK_PORT)
        pods = {key: PodPort(numbers[key]) for key in own.pod_ports}
        bridges[node] = replace(own, pod_ports=MappingProxyType(pods), links=MappingProxyType(links))
    return bridges


def _numbered(keys: Iterable[Key], known: Mapping[Key, int], first: int) -> dict[Key, int]:
    """A port number for each key: the known one, else the lowest from `first` that is not a known one."""
    used = set(known.values())
    free = (number for number in count(first) if number not in used)
    return {key: known[key] if key in known else next(free) for key in keys}


def _snapshots(args: argparse.Namespace) -> tuple[ClusterSnapshot, ClusterSnapshot]:
    store = ManifestStore(_settings(args))
    snapshots = []
    for path in (args.dir, args.new):
        loaded = load_into(store, path, nodes=args.nodes, recursive=args.recursive)
        warn(loaded)
        snapshots.append(loaded)
    return snapshots[0], snapshots[1]


def _settings(args: argparse.Namespace) -> Settings:
    """The settings of both folders; of one of them when the other is a file or standard input, which have none."""
    if args.dir == args.new == STDIN:
        raise InputError.because("only one of DIR and NEWDIR can be standard input")
    if not args.dir.is_dir():
        return load_settings(args.new)
    settings = load_settings(args.dir)
    if args.new.is_dir() and load_settings(args.new) != settings:
        reason = "the settings differ from those of the first folder; only manifests can be compared"
        raise InputError.because(reason, file=str(args.new / "romana.conf"))
    return settings


def _addresses(engine: Engine, cluster: Cluster) -> dict[PodKey, IPv4Address]:
    return {key: address for key in cluster.pods if (address := engine.agents.address_of(key)) is not None}


def _tables(
    engine: Engine, facts: Mapping[str, BridgeFacts], caches: Mapping[str, CompileCache]
) -> tuple[dict[str, Tables], dict[str, CompileCache]]:
    used = {node: caches.get(node) or CompileCache() for node in facts}
    tables: dict[str, Tables] = {}
    with activity(lambda: f"compiling tables ({len(tables)} of {len(facts)} nodes)"):
        for node in facts:
            tables[node] = compile_node_tables(engine, facts, node, used[node]).flows
    return tables, used


def _cost(old: Tables, new: Tables) -> Cost:
    changed = sum(
        old[key].actions != new[key].actions or old[key].cookie != new[key].cookie for key in old.keys() & new.keys()
    )
    return Cost(len(new.keys() - old.keys()), len(old.keys() - new.keys()), changed, len(old), len(new))


def _lines(change: Change, names: Mapping[PodKey, str] | None) -> list[str]:
    """The lines of text; with `names`, one line for each pair of display names instead of each path."""
    if change.is_empty:
        return ["Nothing differs: the same paths are open, and no node gets or loses a flow."]
    lines = []
    for verb, paths in (("opens", change.opened), ("closes", change.closed)):
        rows = (
            summary(paths, names)
            if names is not None
            else [f"{one.source} -> {one.destination}  {one.port}" for one in paths]
        )
        lines += [f"{verb}  {text}" for text in rows]
    if len(lines) < len(change.opened) + len(change.closed):
        lines.append(f"{len(change.opened)} paths open and {len(change.closed)} close; --all lists each.")
    if not (change.opened or change.closed):
        ports = ", ".join(str(port) for port in change.ports)
        lines.append(f"No path opens or closes, on {ports}." if ports else NO_PORTS)
    lines.append("")
    for node, cost in change.nodes.items():
        counts = f"{cost.added} added, {cost.removed} removed, {cost.changed} changed"
        lines.append(
            f"{node}: {'no flow differs' if cost.is_empty else counts} ({cost.before} flows before, {cost.after} after)"
        )
    return lines
