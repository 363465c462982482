"""Shapes of ports: numbers, ranges, names and protocols, each present or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.conformance.words import (
    ALL,
    ALL_PORTS,
    Case,
    Manifest,
    Reach,
    case,
    container_port,
    into,
    labels,
    no_policy,
    out,
    pod,
    policy,
    port,
    step,
)

A = labels(pod="a")

ENTRIES: Mapping[str, tuple[Sequence[Manifest], str]] = {
    "protocol-absent": ([port(80)], "80/tcp"),
    "port-absent-tcp": ([port(protocol="TCP")], "80/tcp 81/tcp"),
    "port-absent-udp": ([port(protocol="UDP")], "80/udp 81/udp"),
    "port-absent-sctp": ([port(protocol="SCTP")], "80/sctp 81/sctp"),
    "both-absent": ([port()], "80/tcp 81/tcp"),
    "number-tcp": ([port(81, "TCP")], "81/tcp"),
    "number-udp": ([port(81, "UDP")], "81/udp"),
    "number-sctp": ([port(81, "SCTP")], "81/sctp"),
    "name-tcp": ([port("serve-80-tcp", "TCP")], "80/tcp"),
    "name-udp": ([port("serve-80-udp", "UDP")], "80/udp"),
    "name-sctp": ([port("serve-80-sctp", "SCTP")], "80/sctp"),
    "name-of-another-protocol": ([port("serve-80-udp", "TCP")], ""),
    "name-without-protocol-is-tcp": ([port("serve-80-udp")], ""),
    "two": ([port(80), port(81, "UDP")], "80/tcp 81/udp"),
    "a-number-and-a-name": ([port(81), port("serve-80-sctp", "SCTP")], "81/tcp 80/sctp"),
    "one-that-nobody-serves": ([port(7, "TCP")], ""),
    "range": ([port(80, end=81)], "80/tcp 81/tcp"),
    "range-that-ends": ([port(79, end=80)], "80/tcp"),
    "range-that-begins": ([port(81, end=65535)], "81/tcp"),
    "range-of-one": ([port(81, end=81)], "81/tcp"),
    "range-of-all": ([port(1, "UDP", end=65535)], "80/udp 81/udp"),
    "range-beside": ([port(82, end=90), port(1, end=79)], ""),
    "range-sctp": ([port(80, "SCTP", end=80)], "80/sctp"),
}
"""The ports of a rule, and which of those that pods serve they mean."""


def _asked(entries: Sequence[Manifest]) -> list[str]:
    """Both ports of the protocols that a rule names, and one of another protocol."""
    named = {str(entry.get("protocol", "TCP")).lower() for entry in entries}
    beside = {"tcp": "80/udp", "udp": "81/tcp", "sctp": "81/tcp"}[min(named)]
    return [each for each in ALL_PORTS.split() if each.partition("/")[2] in named or each == beside]


def _reach(entries: Sequence[Manifest], open_ports: str, limited: Reach) -> dict[str, Reach]:
    return {each: ALL if each in open_ports.split() else limited for each in _asked(entries)}


def _entry_cases() -> tuple[Case, ...]:
    """Each of them in the only rule of x/a, in either direction."""
    return tuple(
        case(
            f"ports-{name}",
            step(
                "x/a takes them",
                policy("x/in", A, ingress=[into(ports=entries)]),
                expect=_reach(entries, found, ALL.closed("*", "x/a")),
            ),
            step(
                "x/a may send to them",
                no_policy("x/in"),
                policy("x/out", A, types=["Egress"], egress=[out(ports=entries)]),
                expect=_reach(entries, found, ALL.closed("x/a", "*")),
            ),
            hazard="A7" if name.startswith("range") else "A6" if "name" in name else "A10",
        )
        for name, (entries, found) in ENTRIES.items()
    )


def _web(key: str, *ports: Manifest) -> Manifest:
    return pod(key, node="node2", labels={"kind": "web"}, ports=ports)


WEB = labels(kind="web")
NAMED = (
    case(
        "a-name-means-each-pods-own-port",
        step(
            "x/one calls 80 web, x/two 81, and the client another",
            _web("x/one", container_port("web", 80)),
            _web("x/two", container_port("web", 81)),
            pod("y/user", node="node2", ports=[container_port("web", 7)]),
            policy("x/in", WEB, ingress=[into(ports=[port("web")])]),
            expect={
                "80/tcp": ALL.closed("*", "x/two"),
                "81/tcp": ALL.closed("*", "x/one"),
                "80/udp": ALL.closed("*", "x/one x/two"),
            },
        ),
        step(
            "y may send to web alone",
            policy("y/out", types=["Egress"], egress=[out(ports=[port("web")])]),
            expect={
                "80/tcp": ALL.closed("*", "x/two").closed("y/*", "*").open("y/*", "x/one"),
                "81/tcp": ALL.closed("*", "x/one").closed("y/*", "*").open("y/*", "x/two"),
            },
        ),
        hazard="A6",
    ),
    case(
        "a-name-in-two-protocols",
        step(
            "x/one calls 80 of TCP and 81 of UDP the same",
            _web("x/one", container_port("web", 80)),
            _web("x/two", container_port("web", 81, "UDP")),
            policy("x/in", WEB, ingress=[into(ports=[port("web", "UDP")])]),
            expect={"81/udp": ALL.closed("*", "x/one"), "80/tcp 81/tcp 80/udp": ALL.closed("*", "x/one x/two")},
        ),
        hazard="A6",
    ),
    case(
        "a-name-that-moves",
        step(
            "x/one calls 80 web",
            _web("x/one", container_port("web", 80)),
            policy("x/in", WEB, ingress=[into(ports=[port("web")])]),
            expect={"80/tcp": ALL, "81/tcp": ALL.closed("*", "x/one")},
        ),
        step(
            "it is replaced by one that calls 81 so",
            _web("x/one", container_port("web", 81)),
            expect={"81/tcp": ALL, "80/tcp": ALL.closed("*", "x/one")},
        ),
        step("and by one that calls nothing so", _web("x/one"), expect={"80/tcp 81/tcp": ALL.closed("*", "x/one")}),
        hazard="A6",
    ),
)

SCTP = (
    case(
        "an-sctp-association-opens-no-other-port",
        step(
            "x/a takes SCTP at 80 alone",
            policy("x/in", A, ingress=[into(ports=[port(80, "SCTP")])]),
            expect={"80/sctp": ALL, "81/sctp": ALL.closed("*", "x/a")},
        ),
        step(
            "and then at 81 alone",
            policy("x/in", A, ingress=[into(ports=[port(81, "SCTP")])]),
            expect={"81/sctp": ALL, "80/sctp": ALL.closed("*", "x/a")},
        ),
        hazard="A9",
    ),
)

CASES: tuple[Case, ...] = (*_entry_cases(), *NAMED, *SCTP)
