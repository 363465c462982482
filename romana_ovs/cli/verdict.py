"""Implements `romana-ovs verdict DIR --from --to --port`: whether a connection is allowed, and by which rule."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from romana_ovs.cli.addresses import AddressMap, saved_state
from romana_ovs.cli.common import add_folder, load_folder, print_json
from romana_ovs.cli.progress import activity
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.evaluate import Decision, decide
from romana_ovs.policy.matrix import depends_on_addresses

HELP = "whether a connection is allowed, and by which rule"
ALLOWED, DROPPED = 0, 1
_NAMED_MATCHES = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `verdict`."""
    add_folder(parser)
    end = "a pod (namespace/name) or an IPv4 address; a pod's address means that pod"
    parser.add_argument("--from", dest="source", metavar="END", required=True, help=f"who connects: {end}")
    parser.add_argument("--to", dest="destination", metavar="END", required=True, help="to whom: likewise")
    parser.add_argument("--port", metavar="PORT", required=True, help="80/tcp, 53/udp, 80 (tcp) or icmp")


def run(args: argparse.Namespace) -> int:
    """0 when the connection is allowed, 1 when it is dropped. Raises InputError for an unknown pod or bad argument."""
    port = PortRef.parse(args.port, field="--port")
    state = saved_state(args.state)
    cluster = load_folder(args).cluster
    ends = {"--from": _written(args.source, "--from"), "--to": _written(args.destination, "--to")}
    wants_addresses = depends_on_addresses(cluster) or any(isinstance(end, IPv4Address) for end in ends.values())
    with activity(f"allocating the addresses of {len(cluster.pods)} pods"):
        known = AddressMap.of(cluster, state) if wants_addresses else None
    source, destination = (_endpoint(end, option, cluster=cluster, known=known) for option, end in ends.items())
    addresses: Mapping[PodKey, IPv4Address] = known.pods if known is not None else {}
    decision = decide(cluster, addresses, Connection(source, destination, port))
    if args.json:
        print_json(as_json(decision))
    else:
        print(decision.reason)
    return ALLOWED if decision.allowed else DROPPED


def as_json(decision: Decision) -> dict[str, object]:
    """As docs/design.md section 8 has it: `allowed`, `reason`, and `rules` of `kind`, `namespace`, `name`, `rule`."""
    rules = [reference._asdict() for reference in decision.rules]
    return {"allowed": decision.allowed, "reason": decision.reason, "rules": rules}


def _written(text: str, option: str) -> IPv4Address | PodKey:
    """The address or pod in an argument."""
    if text.count("/") == 1 and all(text.split("/")):
        return PodKey(text)
    try:
        return IPv4Address(text)
    except ValueError as error:
        reason = f"{text!r} is neither a pod (namespace/name) nor an IPv4 address"
        raise InputError.because(reason, field=option) from error


def _endpoint(end: IPv4Address | PodKey, option: str, *, cluster: Cluster, known: AddressMap | None) -> ConnectionEnd:
    if isinstance(end, IPv4Address):
        return known.end_at(end, cluster) if known is not None else ConnectionEnd(address=end)
    if end not in cluster.pods:
        raise InputError.because(f"there is no pod {end}{_alike(end, cluster.pods)}", field=option)
    return ConnectionEnd(pod=end)


def _alike(name: str, pods: Iterable[PodKey]) -> str:
    """A hint with pods of similar names, or nothing."""
    from difflib import get_close_matches

    names = sorted(pods)
    same_name = [pod for pod in names if pod.partition("/")[2] == name.partition("/")[2]]
    similar = dict.fromkeys([*same_name, *get_close_matches(name, names, n=_NAMED_MATCHES)])
    hints = list(similar)[:_NAMED_MATCHES]
    return f"; did you mean {' or '.join(hints)}?" if hints else ""
