"""Implements `romana-ovs verdict DIR --from --to --port`: whether a connection is allowed, and by which rule."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.cli.addresses import AddressMap, saved_state
from romana_ovs.cli.caveats import caveats, problems_json
from romana_ovs.cli.common import add_folder, exit_code, load_folder, print_json, warn_of_left_out
from romana_ovs.cli.connection_ends import End, EndResolver, ServiceName, Services, ServiceTarget, parse_end
from romana_ovs.cli.left_out import left_out_json
from romana_ovs.cli.progress import activity
from romana_ovs.cli.service_verdict import Outcome, ServiceOutcome, decide_service
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.evaluate import Reference
from romana_ovs.policy.matrix import depends_on_addresses

HELP = "whether a connection is allowed, and by which rule"
ALLOWED, DROPPED = 0, 1
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""Networks in which clusters have their addresses (RFC 1918, RFC 6598)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `verdict`."""
    add_folder(parser)
    end = "a pod (namespace/name) or an IPv4 address; a pod's address means that pod"
    also = f"{end}. A Service (namespace/name, svc/namespace/name) or its address means its pods"
    parser.add_argument("--from", dest="source", metavar="END", required=True, help=f"who connects: {end}")
    parser.add_argument("--to", dest="destination", metavar="END", required=True, help=f"to whom: {also}")
    parser.add_argument("--port", metavar="PORT", required=True, help="80/tcp, 53/udp, 80 (tcp) or icmp")


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0 when the connection is allowed, 1 when dropped. Raises InputError for an invalid argument."""
    port = PortRef.parse(args.port, field="--port")
    state = saved_state(args.state)
    loaded = load_folder(args)
    pods = loaded.cluster.pods
    source, destination = parse_end(args.source, "--from", pods), parse_end(args.destination, "--to", pods)
    resolver = _resolver(loaded, state, (source, destination))
    known = resolver.addresses
    addresses: Mapping[PodKey, IPv4Address] = known.pods if known is not None else {}
    reference = Reference.of(loaded.cluster, addresses)
    client, server = resolver.source(source), resolver.destination(destination, port)
    outcome: Outcome | ServiceOutcome
    if isinstance(server, ServiceTarget):
        outcome = decide_service(reference, client, server, port, resolver.services)
        allowed = outcome.allowed
    else:
        outcome = Outcome.of(reference, Connection(client, server, port))
        allowed = outcome.decision.allowed
    notes = list(_notes(resolver, destination, (client, server)))
    if args.json:
        omitted = left_out_json(loaded, pods=_pods_of(loaded.cluster, (client, server), outcome))
        print_json(outcome.to_json() | ({"notes": notes} if notes else {}) | omitted | problems_json(loaded))
    else:
        print("\n".join([*outcome.lines(), *notes, *caveats(loaded)]))
    if args.strict:
        warn_of_left_out(loaded)
    return exit_code(ALLOWED if allowed else DROPPED, loaded, strict=args.strict)


def _resolver(loaded: ClusterSnapshot, state: Mapping[str, object] | None, ends: tuple[End, End]) -> EndResolver:
    """The resolver of ends, with all addresses if an end or a policy needs them."""
    cluster = loaded.cluster
    needs_addresses = depends_on_addresses(cluster) or any(
        isinstance(end, IPv4Address | ServiceName) or end not in cluster.pods for end in ends
    )
    with activity(f"allocating the addresses of {len(cluster.pods)} pods"):
        address_map = AddressMap.of(cluster, state) if needs_addresses else None
    return EndResolver(cluster, Services.of(loaded), address_map, loaded.left_out)


def _pods_of(
    cluster: Cluster, ends: Iterable[ConnectionEnd | ServiceTarget], outcome: Outcome | ServiceOutcome
) -> set[str]:
    """The pods that a verdict is about: its ends, the backends of a Service, and what its selector matches besides."""
    pods: set[str] = set()
    for end in ends:
        if isinstance(end, ConnectionEnd):
            pods |= {end.pod} if end.pod is not None else set()
        elif end.service.selector is not None:
            inside = (pod for pod in cluster.pods.values() if pod.namespace == end.service.namespace)
            pods |= {pod.key for pod in inside if end.service.selector.matches(pod.labels)}
    if isinstance(outcome, ServiceOutcome):
        pods |= {one.end.pod for one in outcome.backends if one.end.pod is not None}
    return pods


def _notes(
    resolver: EndResolver, destination: End, ends: tuple[ConnectionEnd, ConnectionEnd | ServiceTarget]
) -> list[str]:
    """What else the arguments could mean."""
    notes = []
    if (service := resolver.namesake(destination)) is not None:
        notes.append(f"There is a Service {service}, too: use --to svc/{service} for it.")
    for end in ends:
        address = end.address if isinstance(end, ConnectionEnd) and not end.node else None
        if address is not None and any(address in network for network in _PRIVATE):
            notes.append(
                f"{address} is no address of a pod, node or Service of these manifests, so it counts as outside."
            )
    return notes
