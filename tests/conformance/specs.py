"""NetworkPolicies as JSON: from our model, and a little broken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from hypothesis import strategies as st

from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import IpBlock, KubernetesPolicy, PolicyPeer, PolicyPort, PolicyRule
from tests.conformance.words import Manifest
from tests.support import api_objects

Path = tuple[str | int, ...]

CIDRS = (
    "10.0.0.0/8",
    "0.0.0.0/0",
    "10.0.0.1/8",
    "10.1.0.0/16",
    "10.0.0.0/33",
    "10.0.0.0",
    "010.0.0.0/8",
    "10.0.0.0/08",
    "10.0/8",
    "10.0.0.0/-1",
    "10.0.0.0/8 ",
    "fd00::/8",
    "fd00::1/8",
    "FD00::/8",
    "fe80::1%eth0/64",
    "::/0",
    "/8",
    "::ffff:10.0.0.0/104",
    "::/129",
    "x/8",
    "10.0.0.0/+8",
    "10.0.0.0/255.0.0.0",
    "1.2.3.4/32",
    "",
)
PORTS = (
    0,
    1,
    80,
    81,
    65535,
    65536,
    -1,
    2**31,
    2**40,
    80.0,
    80.5,
    1e3,
    True,
    "http",
    "80",
    "HTTP",
    "a--b",
    "-a",
    "a" * 15,
    "a" * 16,
    "",
)
TEXTS = (
    "",
    "x",
    "a b",
    "a.b",
    "a_b",
    "-a",
    "a" * 63,
    "a" * 64,
    "example.com/a",
    "/a",
    "a/b/c",
    "a/",
    "\u00e9",
    "TCP",
    "UDP",
    "SCTP",
    "tcp",
    "ICMP",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "in",
    "Ingress",
    "Egress",
    "ingress",
)
OTHERS: tuple[object, ...] = (
    None, True, {}, [], [{}], [None], ["Ingress"], ["Ingress", "Egress"], ["Ingress"] * 3, ["a", "b"], ["a", ""],
    ["a b"], {"matchLabels": {}}, {"matchLabels": {"a": None}}, {"matchLabels": {"a": "b c"}}, {"a": "b"},
    {"matchExpressions": [{"key": "a", "operator": "In"}]}, {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
    {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}, {"podSelector": {}},
    {"podSelector": None}, {"namespaceSelector": {}}, {"ipBlock": {}}, {"ipBlock": None},
    {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}, {"cidr": "10.0.0.0/8"},
    {"cidr": "10.0.0.0/8", "except": []}, {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]},
    {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]},
    {"cidr": "fd00::/8", "except": ["fd01::/16"]}, {"cidr": "fd00::/8", "except": ["10.0.0.0/8"]},
    {"port": 80}, {"port": "http"}, {"port": 80, "endPort": 81}, {"port": 81, "endPort": 80},
    {"port": "http", "endPort": 80}, {"endPort": 80}, {"port": None, "endPort": 80}, {"protocol": "UDP"},
    {"protocol": None}, {"port": 80, "endPort": 65536},
)  # fmt: skip
"""What stands in a manifest now and then, right or wrong, in the place for it or in another."""
ODD_VALUES: tuple[object, ...] = (*CIDRS, *PORTS, *TEXTS, *OTHERS)
FITTING: Mapping[str, tuple[object, ...]] = {"cidr": CIDRS, "except": CIDRS, "port": PORTS, "endPort": PORTS}
ODD_FIELDS = (
    "podSelector",
    "namespaceSelector",
    "ipBlock",
    "ports",
    "from",
    "to",
    "port",
    "protocol",
    "endPort",
    "values",
    "cidr",
    "except",
    "ingress",
    "egress",
    "policyTypes",
    "matchLabels",
    "matchExpressions",
    "allow",
    "Ports",
)


def encoded(policy: KubernetesPolicy) -> dict[str, object]:
    """The spec that means `policy`, every field written out."""
    return {
        "podSelector": _selector(policy.selector),
        "policyTypes": sorted(direction.value for direction in policy.directions),
        "ingress": [_rule(rule, "from") for rule in policy.ingress],
        "egress": [_rule(rule, "to") for rule in policy.egress],
    }


def manifest(spec: object, name: str = "tried", namespace: str = "default") -> Manifest:
    """The policy of this spec."""
    return api_objects.policy(f"{namespace}/{name}", spec)


def _selector(selector: Selector) -> dict[str, object]:
    return (
        {
            "matchExpressions": [
                {
                    "key": each.key,
                    "operator": each.operator.value,
                    **({"values": sorted(each.values)} if each.values else {}),
                }
                for each in selector.requirements
            ]
        }
        if selector.requirements
        else {}
    )


def _rule(rule: PolicyRule, side: str) -> dict[str, object]:
    return {side: [_peer(peer) for peer in rule.peers], "ports": [_port(port) for port in rule.ports]}


def _peer(peer: PolicyPeer) -> dict[str, object]:
    found: dict[str, object] = {}
    if peer.pods is not None:
        found["podSelector"] = _selector(peer.pods)
    if peer.namespaces is not None:
        found["namespaceSelector"] = _selector(peer.namespaces)
    if peer.ip_block is not None:
        found["ipBlock"] = _block(peer.ip_block)
    return found


def _block(block: IpBlock) -> dict[str, object]:
    return {"cidr": str(block.cidr), "except": [str(each) for each in block.except_cidrs]}


def _port(port: PolicyPort) -> dict[str, object]:
    given = {"protocol": port.protocol.name, "port": port.port, "endPort": port.end}
    return {key: value for key, value in given.items() if value is not None}


@st.composite
def slightly_broken(draw: st.DrawFn, spec: object) -> object:
    """A copy in which one or two places are replaced, gone, or joined by a field that may not belong there."""
    found = json.loads(json.dumps(spec))
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        places = sorted(_places(found), key=str)
        if not places:
            return found
        leaves = [way for way in places if not FITTING.keys().isdisjoint(way)]
        *way, last = draw(st.one_of(st.sampled_from(places), st.sampled_from(leaves or places)))
        inside = found
        for key in way:
            inside = inside[key]
        change = draw(st.sampled_from(("replace", "replace", "remove", "add")))
        fitting = FITTING.get(str(last if isinstance(last, str) else way[-1]), TEXTS)
        value = draw(st.one_of(st.sampled_from(fitting), st.sampled_from(ODD_VALUES)))
        if change == "remove":
            del inside[last]
        elif change == "add" and isinstance(inside[last], dict):
            inside[last][draw(st.sampled_from(ODD_FIELDS))] = value
        elif change == "add" and isinstance(inside[last], list):
            inside[last].append(value)
        else:
            inside[last] = value
        found = json.loads(json.dumps(found))
    return found


def _places(value: object, way: Path = ()) -> Iterator[Path]:
    if way:
        yield way
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*way, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*way, index))
