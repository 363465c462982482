"""Checks peers: two items where one with both selectors may be meant, and blocks of addresses of pods or Services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from romana_ovs.lint.context import LintContext, PolicyObject
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import EVERYTHING
from romana_ovs.model.objects import Direction, PolicyPeer
from romana_ovs.model.selector_text import selector_text
from romana_ovs.model.syntax import joined
from romana_ovs.policy.evaluate import ip_block_contains

EVERYWHERE = IPv4Network("0.0.0.0/0")


def split_peers(context: LintContext) -> Iterator[Problem]:
    """A list of two peers, a namespaceSelector alone and a podSelector alone: one peer with both may be meant.

    It is a warning when the podSelector matches no pod of the policy's namespace, and pods of the selected ones.
    """
    for policy in context.policies:
        for rule in () if policy.item.source.get("apiVersion") != "networking.k8s.io/v1" else policy.rules():
            if len(rule.peers) != 2:
                continue
            for first, second in ((0, 1), (1, 0)):
                outer, inner = rule.peers[first], rule.peers[second]
                if outer.namespaces is not None and outer.pods is None and inner.namespaces is None and inner.pods:
                    yield from _split(context, policy, rule.peer_path(1), outer, inner)


def _split(
    context: LintContext, policy: PolicyObject, path: str, outer: PolicyPeer, inner: PolicyPeer
) -> Iterator[Problem]:
    if outer.namespaces is None or inner.pods is None or inner.pods == EVERYTHING:
        return
    both = PolicyPeer(pods=inner.pods, namespaces=outer.namespaces)
    reason = (
        f"are two peers: every pod of namespaces with {selector_text(outer.namespaces)}, and pods with "
        f"{selector_text(inner.pods)} of namespace {policy.namespace}; for pods with these labels of those namespaces "
        "make them one item, with no '-' before the second selector"
    )
    field = path.removesuffix("[1]")
    if not any(context.peer_pods(policy.policy, inner)) and any(context.peer_pods(policy.policy, both)):
        yield policy.warning(field, reason)
    else:
        yield policy.note(field, reason)


def blocks_of_the_cluster(context: LintContext) -> Iterator[Problem]:
    """Blocks with addresses of Services, which policies never see, or of pods, whose addresses change."""
    network = context.cluster.settings.network
    services = [
        (address, str(one)) for one in context.services for address in one.addresses if isinstance(address, IPv4Address)
    ]
    pods = [(pod.address, pod.key) for pod in context.cluster.pods.values() if pod.networked and pod.address]
    for policy in context.policies:
        for rule in policy.rules():
            for index, peer in enumerate(rule.peers):
                if peer.ip_block is None or peer.ip_block.cidr == EVERYWHERE:
                    continue
                path = f"{rule.peer_path(index)}.ipBlock.cidr"
                inside = [name for address, name in pods if ip_block_contains(peer.ip_block, address)]
                translated = [name for address, name in services if ip_block_contains(peer.ip_block, address)]
                if inside:
                    reason = f"{peer.ip_block.cidr} has addresses of pods ({joined(inside)}) and means them, too; "
                    yield policy.note(path, reason + "addresses of pods change, so select them by labels")
                elif translated:
                    reason = (
                        f"{peer.ip_block.cidr} has addresses of Services ({joined(translated)}), which policies never "
                        "see: they see the pods behind it; select these by labels"
                    )
                    # Clients have no such address, and a block with addresses of the plan means pods, too.
                    aimed = rule.direction is Direction.EGRESS and not peer.ip_block.cidr.overlaps(network)
                    yield policy.warning(path, reason) if aimed else policy.note(path, reason)


def host_bits(context: LintContext) -> Iterator[Problem]:
    """Blocks with address bits behind the prefix, which do not count."""
    for policy in context.policies:
        for path, text in _cidrs(policy.item.source.get("spec")):
            try:
                interface = IPv4Interface(text)
            except ValueError:
                continue
            network = interface.network
            if "/" in text and network.network_address != interface.ip:
                reason = f"{text} means all of {network}; write {network}, or {interface.ip}/32 for the one address"
                yield policy.warning(path, reason)


def _cidrs(spec: object) -> Iterator[tuple[str, str]]:
    """The path and text of each cidr and except of the rules in `spec`."""
    for field, side in (("ingress", "from"), ("egress", "to")):
        rules = spec.get(field) if isinstance(spec, Mapping) else None
        for number, rule in enumerate(rules if isinstance(rules, list) else ()):
            peers = rule.get(side) if isinstance(rule, Mapping) else None
            for index, peer in enumerate(peers if isinstance(peers, list) else ()):
                block = peer.get("ipBlock") if isinstance(peer, Mapping) else None
                path = f"spec.{field}[{number}].{side}[{index}].ipBlock"
                if isinstance(block, Mapping):
                    holes = block.get("except")
                    texts = [("cidr", block.get("cidr"))]
                    texts += [
                        (f"except[{at}]", hole) for at, hole in enumerate(holes if isinstance(holes, list) else ())
                    ]
                    yield from ((f"{path}.{name}", text) for name, text in texts if isinstance(text, str))
