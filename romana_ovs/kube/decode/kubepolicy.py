"""networking.k8s.io/v1 NetworkPolicy, decoded and validated as the API server does.

Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Network, IPv6Network, NetmaskValueError, ip_network

from romana_ovs.kube.decode.selectors import read_port, read_selector
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import EVERYTHING
from romana_ovs.model.objects import Direction, IpBlock, KubernetesPolicy, PolicyPeer, PolicyRule
from romana_ovs.model.syntax import shown

NO_PEER = PolicyPeer()
"""A peer that nothing is: `{}` that came by way of a CRD, or an IPv6 block (IPv4 only for now)."""

_DIRECTIONS = {direction.value: direction for direction in Direction}
_BOTH = frozenset(Direction)
_SPEC = ("podSelector", "ingress", "egress", "policyTypes")
_PEER = ("podSelector", "namespaceSelector", "ipBlock")


def read_kubernetes_policy(spec: object, namespace: str, name: str, notes: Validator) -> KubernetesPolicy:
    """The policy whose `spec` this is, as far as it can be read; `notes` say what could not."""
    fields = notes.mapping(spec, "spec", _SPEC)
    return KubernetesPolicy(
        namespace=namespace,
        name=name,
        selector=read_selector(fields.get("podSelector"), "spec.podSelector", notes),
        directions=_directions(fields, notes),
        ingress=_rules(fields.get("ingress"), "spec.ingress", notes),
        egress=_rules(fields.get("egress"), "spec.egress", notes),
    )


def isolating(policy: KubernetesPolicy, spec: object, notes: Validator) -> KubernetesPolicy:
    """What stands in for `policy` of this `spec` when `notes` make it invalid: it isolates, and allows nothing.

    It isolates what the policy selects, the whole namespace when that cannot be read, in the policy's
    directions, both when those cannot be read. A misspelt field may have been either.
    """
    fields = spec if isinstance(spec, dict) else {}
    lost = notes.names("spec") or (spec is None and bool(notes.unknown))
    misspelt = "spec" in notes.unknown
    unread = lost or notes.concerns("spec.podSelector") or (misspelt and "podSelector" not in fields)
    undirected = lost or notes.concerns("spec.policyTypes")
    if not fields.get("policyTypes"):
        undirected = undirected or misspelt or notes.names("spec.egress")
    return KubernetesPolicy(
        namespace=policy.namespace,
        name=policy.name,
        selector=EVERYTHING if unread else policy.selector,
        directions=_BOTH if undirected else policy.directions,
    )


def _directions(fields: Mapping[str, object], notes: Validator) -> frozenset[Direction]:
    listed = notes.listing(fields.get("policyTypes"), "spec.policyTypes")
    if not listed:
        return _BOTH if fields.get("egress") else frozenset({Direction.INGRESS})
    found = set()
    for index, name in enumerate(listed):
        direction = _DIRECTIONS.get(name) if isinstance(name, str) else None
        if direction is None:
            notes.wrong(f"spec.policyTypes[{index}]", f"{shown(name)} is none of {', '.join(_DIRECTIONS)}")
        else:
            found.add(direction)
    if len(listed) > len(_DIRECTIONS):
        notes.wrong("spec.policyTypes", f"holds more than {len(_DIRECTIONS)} entries")
    return frozenset(found)


def _rules(value: object, path: str, notes: Validator) -> tuple[PolicyRule, ...]:
    side = "from" if path.endswith("ingress") else "to"
    return tuple(
        PolicyRule(
            peers=tuple(
                _peer(peer, at, notes) for at, peer in notes.entries_of(entry.get(side), f"{where}.{side}", _PEER)
            ),
            ports=tuple(
                read_port(port, at, notes)
                for at, port in notes.entries_of(entry.get("ports"), f"{where}.ports", ("protocol", "port", "endPort"))
            ),
        )
        for where, entry in notes.entries_of(value, path, (side, "ports"))
    )


def _peer(entry: Mapping[str, object], path: str, notes: Validator) -> PolicyPeer:
    pods, namespaces, block = entry.get("podSelector"), entry.get("namespaceSelector"), entry.get("ipBlock")
    if block is not None:
        if pods is not None or namespaces is not None:
            notes.wrong(path, "ipBlock cannot stand beside a selector in one peer")
        found = _block(block, f"{path}.ipBlock", notes)
        return PolicyPeer(ip_block=found) if found is not None else NO_PEER
    if pods is None and namespaces is None:
        notes.doubtful(path, "names no peer and so matches nothing (an omitted list matches every peer)")
        return NO_PEER
    return PolicyPeer(
        pods=None if pods is None else read_selector(pods, f"{path}.podSelector", notes),
        namespaces=None if namespaces is None else read_selector(namespaces, f"{path}.namespaceSelector", notes),
    )


def _block(value: object, path: str, notes: Validator) -> IpBlock | None:
    """The block, or None when it is of IPv6 (or cannot be read, which is noted)."""
    fields = notes.mapping(value, path, ("cidr", "except"))
    if fields.get("cidr") is None:
        notes.wrong(f"{path}.cidr", "is required")
        return None
    whole = read_cidr(fields["cidr"], f"{path}.cidr", notes)
    excepts = []
    for index, entry in enumerate(notes.listing(fields.get("except"), f"{path}.except")):
        where = f"{path}.except[{index}]"
        part = read_cidr(entry, where, notes)
        if part is None or whole is None:
            continue
        if not _inside(part, whole):
            notes.wrong(where, f"{part} is not a smaller part of cidr {whole}")
        elif isinstance(part, IPv4Network):
            excepts.append(part)
    return IpBlock(whole, tuple(excepts)) if isinstance(whole, IPv4Network) else None


def _inside(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    if isinstance(part, IPv4Network) and isinstance(whole, IPv4Network):
        return part != whole and part.subnet_of(whole)
    if isinstance(part, IPv6Network) and isinstance(whole, IPv6Network):
        return part != whole and part.subnet_of(whole)
    return False


def read_cidr(value: object, path: str, notes: Validator) -> IPv4Network | IPv6Network | None:
    """A CIDR such as `10.1.0.0/16`, host bits masked off; None when it is none (noted)."""
    text = value if isinstance(value, str) else ""
    _, slash, width = text.partition("/")
    try:
        if slash and width.isascii() and width.isdigit() and "%" not in text:
            return ip_network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        pass
    notes.wrong(path, f"{shown(value)} is not a CIDR such as 10.1.0.0/16")
    return None
