"""Implements `romana-ovs verdict DIR --from --to --port`: whether a connection is allowed, and by which rule."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from romana_ovs.cli.addresses import AddressMap, saved_state
from romana_ovs.cli.caveats import caveats, problems_json
from romana_ovs.cli.common import add_folder, exit_code, load_folder, print_json
from romana_ovs.cli.progress import activity
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.evaluate import Decision, decide
from romana_ovs.policy.matrix import depends_on_addresses

HELP = "whether a connection is allowed, and by which rule"
ALLOWED, DROPPED = 0, 1
_MAX_HINTS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `verdict`."""
    add_folder(parser)
    end = "a pod (namespace/name) or an IPv4 address; a pod's address means that pod"
    parser.add_argument("--from", dest="source", metavar="END", required=True, help=f"who connects: {end}")
    parser.add_argument("--to", dest="destination", metavar="END", required=True, help="to whom: likewise")
    parser.add_argument("--port", metavar="PORT", required=True, help="80/tcp, 53/udp, 80 (tcp) or icmp")


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0 when the connection is allowed, 1 when dropped. Raises InputError for an invalid argument."""
    port = PortRef.parse(args.port, field="--port")
    state = saved_state(args.state)
    loaded = load_folder(args)
    cluster = loaded.cluster
    ends = {"--from": _parse_end(args.source, "--from"), "--to": _parse_end(args.destination, "--to")}
    needs_addresses = depends_on_addresses(cluster) or any(isinstance(end, IPv4Address) for end in ends.values())
    with activity(f"allocating the addresses of {len(cluster.pods)} pods"):
        address_map = AddressMap.of(cluster, state) if needs_addresses else None
    source, destination = (
        _connection_end(end, option, cluster=cluster, address_map=address_map) for option, end in ends.items()
    )
    addresses: Mapping[PodKey, IPv4Address] = address_map.pods if address_map is not None else {}
    decision = decide(cluster, addresses, Connection(source, destination, port))
    if args.json:
        print_json(as_json(decision) | problems_json(loaded))
    else:
        print("\n".join([decision.reason, *caveats(loaded)]))
    return exit_code(ALLOWED if decision.allowed else DROPPED, loaded, strict=args.strict)


def as_json(decision: Decision) -> dict[str, object]:
    """As in docs/design.md section 8: `allowed`, `reason`, and `rules` of `kind`, `namespace`, `name`, `rule`."""
    rules = [reference._asdict() for reference in decision.rules]
    return {"allowed": decision.allowed, "reason": decision.reason, "rules": rules}


def _parse_end(text: str, option: str) -> IPv4Address | PodKey:
    """The address or pod in an argument."""
    if text.count("/") == 1 and all(text.split("/")):
        return PodKey(text)
    try:
        return IPv4Address(text)
    except ValueError as error:
        reason = f"{text!r} is neither a pod (namespace/name) nor an IPv4 address"
        raise InputError.because(reason, field=option) from error


def _connection_end(
    end: IPv4Address | PodKey, option: str, *, cluster: Cluster, address_map: AddressMap | None
) -> ConnectionEnd:
    if isinstance(end, IPv4Address):
        return address_map.end_at(end, cluster) if address_map is not None else ConnectionEnd(address=end)
    if end not in cluster.pods:
        raise InputError.because(f"there is no pod {end}{_did_you_mean(end, cluster.pods)}", field=option)
    return ConnectionEnd(pod=end)


def _did_you_mean(name: str, pods: Iterable[PodKey]) -> str:
    """A hint with pods of similar names, or nothing."""
    from difflib import get_close_matches

    names = sorted(pods)
    same_name = [pod for pod in names if pod.partition("/")[2] == name.partition("/")[2]]
    similar = dict.fromkeys([*same_name, *get_close_matches(name, names, n=_MAX_HINTS)])
    hints = list(similar)[:_MAX_HINTS]
    return f"; did you mean {' or '.join(hints)}?" if hints else ""
