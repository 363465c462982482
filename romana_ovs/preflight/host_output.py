"""Decodes what programs and files say of a host: `ip`, `nft`, and the kernel's lists of modules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Interface, IPv4Network
from types import MappingProxyType
from typing import Any

from romana_ovs.preflight.facts import TUNNEL_TYPES, KernelModules, Link, Route, Ruleset

ANY_PORT = frozenset(TUNNEL_TYPES.values())
"""What a rule without ports stands for: those that matter here."""
_LISTEN = "0A"
"""The state of a listening socket (include/net/tcp_states.h)."""
_BASE_FAMILIES = ("ip", "inet")


def links_of(text: str) -> tuple[Link, ...]:
    """The devices in the output of `ip -j -d address show`. Raises ValueError."""
    return tuple(_link(each) for each in _objects(text))


def _link(item: Mapping[str, Any]) -> Link:
    kind = item.get("linkinfo", {}).get("info_kind", "")
    port = item.get("linkinfo", {}).get("info_data", {}).get("port") if kind in TUNNEL_TYPES else None
    addresses = tuple(
        IPv4Interface((each["local"], each["prefixlen"]))
        for each in item.get("addr_info", ())
        if each.get("family") == "inet" and "local" in each
    )
    return Link(item["ifname"], item["mtu"], addresses, kind, port, item.get("master", ""))


def routes_of(text: str) -> tuple[Route, ...]:
    """The unicast routes in the output of `ip -j -4 route show table all`. Raises ValueError."""
    return tuple(
        Route(IPv4Network("0.0.0.0/0" if item["dst"] == "default" else item["dst"]), device)
        for item in _objects(text)
        if item.get("type", "unicast") == "unicast"
        for device in {item.get("dev") or next((hop.get("dev") for hop in item.get("nexthops", ())), None)}
        if device
    )


def ruleset_of(text: str) -> Ruleset:
    """What matters of the output of `nft -j -t list ruleset`. Raises ValueError."""
    document = json.loads(text)
    items = document.get("nftables", []) if isinstance(document, dict) else []
    tables = {f"{each['family']} {each['name']}" for each in _of_kind(items, "table")}
    chains = {
        (each["family"], each["table"], each["name"]): each for each in _of_kind(items, "chain") if each.get("hook")
    }
    untracked: dict[str, frozenset[int]] = {}
    for rule in _of_kind(items, "rule"):
        chain = chains.get((rule["family"], rule["table"], rule["chain"]))
        if chain is not None and any("notrack" in part for part in rule["expr"] if isinstance(part, dict)):
            hook = chain["hook"]
            untracked[hook] = untracked.get(hook, frozenset()) | _udp_ports(rule["expr"])
    drops = (
        " ".join(key)
        for key, each in sorted(chains.items())
        if each["hook"] == "forward" and each.get("policy") == "drop" and key[0] in _BASE_FAMILIES
    )
    return Ruleset(MappingProxyType(untracked), tuple(drops), frozenset(tables))


def legacy_forward_drop(text: str) -> bool:
    """Whether the chain FORWARD drops by default, in the output of `iptables-legacy -S FORWARD`."""
    return any(line.split() == ["-P", "FORWARD", "DROP"] for line in text.splitlines())


def plugins_of(text: str) -> tuple[str, ...]:
    """The programs that a CNI configuration list names. Raises ValueError, KeyError and TypeError."""
    return tuple(str(each["type"]) for each in json.loads(text)["plugins"])


def _udp_ports(expression: Iterable[Any]) -> frozenset[int]:
    """The UDP destination ports that a rule matches."""
    matches = [part["match"] for part in expression if isinstance(part, dict) and "match" in part]
    for match in matches:
        if match.get("left") == {"payload": {"protocol": "udp", "field": "dport"}}:
            return frozenset(_numbers(match.get("right")))
    return frozenset() if matches else ANY_PORT


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        for each in value.get("set", ()):
            yield from _numbers(each)
        if "range" in value:
            first, last = value["range"]
            yield from (port for port in ANY_PORT if first <= port <= last)


def _of_kind(items: Iterable[Any], kind: str) -> Iterator[Mapping[str, Any]]:
    return (each[kind] for each in items if isinstance(each, dict) and kind in each)


def _objects(text: str) -> list[Mapping[str, Any]]:
    """The objects of a JSON list; `ip` prints nothing or empty objects where there is nothing."""
    return [each for each in json.loads(text or "[]") if each]


def modules_of(loaded: str, built_in: str, loadable: str) -> KernelModules:
    """The modules in /proc/modules, in `modules.builtin` and in `modules.dep` of the kernel."""
    names = {line.split()[0] for line in loaded.splitlines() if line.strip()}
    return KernelModules(
        frozenset(names) | frozenset(map(_module_name, built_in.split())),
        frozenset(_module_name(line.partition(":")[0]) for line in loadable.splitlines() if line.strip()),
    )


def _module_name(path: str) -> str:
    """The name of a module in the kernel, where a file may have dashes and be compressed."""
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def listening_of(text: str) -> frozenset[int]:
    """The TCP ports with a listening socket in /proc/net/tcp (proc(5)). Raises ValueError and IndexError."""
    rows = (line.split() for line in text.splitlines()[1:])
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN)
