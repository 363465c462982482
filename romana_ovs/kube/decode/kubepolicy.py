"""Decodes and validates networking.k8s.io/v1 NetworkPolicy, as the API server does.

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
"""A peer that matches nothing: `{}`, or an IPv6 block (only IPv4 is supported)."""

_DIRECTIONS = {direction.value: direction for direction in Direction}
_BOTH = frozenset(Direction)
_SPEC = ("podSelector", "ingress", "egress", "policyTypes")
_NO_PEER_ADVICE = (
    "names no peer, so it matches nothing here, and the API server refuses it; for all pods of the namespace write"
    " podSelector: {}, for everyone leave out the list"
)
_PEER = ("podSelector", "namespaceSelector", "ipBlock")


def read_kubernetes_policy(spec: object, namespace: str, name: str, validator: Validator) -> KubernetesPolicy:
    """The policy with this `spec`, as far as it can be read; `validator` has the errors."""
    fields = validator.mapping(spec, "spec", _SPEC)
    return KubernetesPolicy(
        namespace=namespace,
        name=name,
        selector=read_selector(fields.get("podSelector"), "spec.podSelector", validator),
        directions=_directions(fields, validator),
        ingress=_rules(fields.get("ingress"), "spec.ingress", validator),
        egress=_rules(fields.get("egress"), "spec.egress", validator),
    )


def isolating_fallback(policy: KubernetesPolicy, spec: object, validator: Validator) -> KubernetesPolicy:
    """The fallback for an invalid `policy` with this `spec`: it isolates, and allows nothing.

    It isolates the pods that the policy selects (the whole namespace when the selector cannot be read) in its
    directions (both when they cannot be read). A misspelt field may have been either.
    """
    fields = spec if isinstance(spec, dict) else {}
    unreadable = validator.has("spec") or (spec is None and bool(validator.unknown_in))
    misspelt = "spec" in validator.unknown_in
    no_selector = unreadable or validator.has_under("spec.podSelector") or (misspelt and "podSelector" not in fields)
    no_directions = unreadable or validator.has_under("spec.policyTypes")
    if not fields.get("policyTypes"):
        no_directions = no_directions or misspelt or validator.has("spec.egress")
    return KubernetesPolicy(
        namespace=policy.namespace,
        name=policy.name,
        selector=EVERYTHING if no_selector else policy.selector,
        directions=_BOTH if no_directions else policy.directions,
    )


def _directions(fields: Mapping[str, object], validator: Validator) -> frozenset[Direction]:
    listed = validator.sequence(fields.get("policyTypes"), "spec.policyTypes")
    if not listed:
        return _BOTH if fields.get("egress") else frozenset({Direction.INGRESS})
    directions = set()
    for index, name in enumerate(listed):
        direction = _DIRECTIONS.get(name) if isinstance(name, str) else None
        if direction is None:
            validator.error(f"spec.policyTypes[{index}]", f"{shown(name)} is none of {', '.join(_DIRECTIONS)}")
        else:
            directions.add(direction)
    if len(listed) > len(_DIRECTIONS):
        validator.error("spec.policyTypes", f"holds more than {len(_DIRECTIONS)} entries")
    return frozenset(directions)


def _rules(value: object, path: str, validator: Validator) -> tuple[PolicyRule, ...]:
    side = "from" if path.endswith("ingress") else "to"
    hint = f" (a peer has podSelector, namespaceSelector or ipBlock; ports stand beside {side})"
    return tuple(
        PolicyRule(
            peers=tuple(
                _peer(peer, at, validator)
                for at, peer in validator.mappings_in(entry.get(side), f"{where}.{side}", _PEER, hint=hint)
            ),
            ports=tuple(
                read_port(port, at, validator)
                for at, port in validator.mappings_in(
                    entry.get("ports"), f"{where}.ports", ("protocol", "port", "endPort")
                )
            ),
        )
        for where, entry in validator.mappings_in(value, path, (side, "ports"))
    )


def _peer(entry: Mapping[str, object], path: str, validator: Validator) -> PolicyPeer:
    pods, namespaces, block = entry.get("podSelector"), entry.get("namespaceSelector"), entry.get("ipBlock")
    if block is not None:
        if pods is not None or namespaces is not None:
            validator.error(path, "ipBlock cannot stand beside a selector in one peer")
        ip_block = _block(block, f"{path}.ipBlock", validator)
        return PolicyPeer(ip_block=ip_block) if ip_block is not None else NO_PEER
    if pods is None and namespaces is None:
        validator.warning(path, _NO_PEER_ADVICE)
        return NO_PEER
    return PolicyPeer(
        pods=None if pods is None else read_selector(pods, f"{path}.podSelector", validator),
        namespaces=None if namespaces is None else read_selector(namespaces, f"{path}.namespaceSelector", validator),
    )


def _block(value: object, path: str, validator: Validator) -> IpBlock | None:
    """The block; None when it is IPv6, or cannot be read (an error)."""
    fields = validator.mapping(value, path, ("cidr", "except"))
    if fields.get("cidr") is None:
        validator.error(f"{path}.cidr", "is required")
        return None
    whole = read_cidr(fields["cidr"], f"{path}.cidr", validator)
    excepts = []
    for index, entry in enumerate(validator.sequence(fields.get("except"), f"{path}.except")):
        where = f"{path}.except[{index}]"
        part = read_cidr(entry, where, validator)
        if part is None or whole is None:
            continue
        if not _is_proper_subnet(part, whole):
            validator.error(where, f"{part} is not a smaller part of cidr {whole}")
        elif isinstance(part, IPv4Network):
            excepts.append(part)
    if isinstance(whole, IPv6Network):
        reason = f"{whole} is IPv6, which is not acted on: this peer allows no IPv4 connection, and IPv6 is dropped"
        validator.not_supported(f"{path}.cidr", reason)
    return IpBlock(whole, tuple(excepts)) if isinstance(whole, IPv4Network) else None


def _is_proper_subnet(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    if isinstance(part, IPv4Network) and isinstance(whole, IPv4Network):
        return part != whole and part.subnet_of(whole)
    if isinstance(part, IPv6Network) and isinstance(whole, IPv6Network):
        return part != whole and part.subnet_of(whole)
    return False


def read_cidr(value: object, path: str, validator: Validator) -> IPv4Network | IPv6Network | None:
    """A CIDR such as `10.1.0.0/16`, host bits masked off; None when it is something else (an error)."""
    text = value if isinstance(value, str) else ""
    _, slash, width = text.partition("/")
    try:
        if slash and width.isascii() and width.isdigit() and "%" not in text:
            return ip_network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        pass
    validator.error(path, f"{shown(value)} is not a CIDR such as 10.1.0.0/16")
    return None
