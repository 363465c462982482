"""Limits the size of one policy, so that nobody who may write policies can block the controller.

etcd accepts objects of 1.5 MiB, enough for tens of thousands of addresses. Computing their tables takes seconds, and
switches would wait meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.objects import IpBlock, KubernetesPolicy, Policy, PolicyPeer, PolicyPort

MAX_TERMS = 5000
"""Peers and ports of one direction of one policy, counted as the rows that they need: half a second of computing."""
_RANGE_TERMS = 16
"""Masked matches of a range of ports, on average (30 at most). Also for a named port (`MAX_NUMBERS_PER_NAME`)."""


def check_size(policy: Policy, validator: Validator) -> None:
    """Record an error for each direction of `policy` that is too large."""
    for path, total in _directions(policy):
        if total > MAX_TERMS:
            reason = f"its peers and ports take about {total} flows, and one policy may take {MAX_TERMS}: split it"
            validator.error(path, reason)


def policy_terms(policy: Policy) -> int:
    """Peers and ports of `policy` in all directions; 0 when it allows nothing."""
    return sum(total for _, total in _directions(policy))


def _directions(policy: Policy) -> Iterator[tuple[str, int]]:
    """The path of each list of rules, and how many peers and ports it has. A rule without any counts as one."""
    if isinstance(policy, KubernetesPolicy):
        for path, rules in (("spec.ingress", policy.ingress), ("spec.egress", policy.egress)):
            yield path, sum(max(1, _peers(rule.peers) + _ports(rule.ports)) for rule in rules)
    else:
        yield "spec.allowIncoming", sum(max(1, len(rule.sources) + _ports(rule.ports)) for rule in policy.rules)


def _peers(peers: Iterable[PolicyPeer]) -> int:
    return sum(1 if peer.ip_block is None else _networks(peer.ip_block) for peer in peers)


def _networks(block: IpBlock) -> int:
    """The most networks that can remain of `block`: an exception adds one for each bit that it is longer."""
    return 1 + sum(hole.prefixlen - block.cidr.prefixlen for hole in block.except_cidrs)


def _ports(ports: Iterable[PolicyPort]) -> int:
    return sum(_RANGE_TERMS if _is_many(port) else 1 for port in ports)


def _is_many(port: PolicyPort) -> bool:
    return isinstance(port.port, str) or (port.end is not None and port.end != port.port)
