"""Cases of the upstream NetworkPolicy end-to-end list about protocols, and about labels that change."""

from __future__ import annotations

from tests.conformance.words import (
    ALL,
    EVERY,
    Case,
    case,
    into,
    labels,
    named,
    namespace,
    pod,
    pods,
    policy,
    port,
    spaces,
    step,
)

A = labels(pod="a")


def _protocol_cases(protocol: str) -> tuple[Case, ...]:
    """The three cases that upstream repeats over UDP and over SCTP."""
    name = protocol.upper()
    return (
        case(
            f"{protocol}-default-deny-ingress",
            step(
                "a policy selects all of x and lists Ingress",
                policy("x/deny", EVERY, types=["Ingress"], ingress=[]),
                expect={f"80/{protocol}": ALL.closed("*", "x/*")},
            ),
            upstream=f"{name}: support a 'default-deny-ingress' policy",
        ),
        case(
            f"{protocol}-port",
            step(
                "x/a takes y at 81 alone",
                policy("x/from-y", A, types=["Ingress"], ingress=[into(spaces(named("y")), ports=[port(81, name)])]),
                expect={f"81/{protocol}": ALL.closed("x/* z/*", "x/a"), f"80/{protocol}": ALL.closed("*", "x/a")},
            ),
            upstream=f"{name}: enforce policy based on Ports",
        ),
        case(
            f"{protocol}-one-pod-of-another-namespace",
            step(
                "x/a takes y/a alone",
                policy("x/ya", A, types=["Ingress"], ingress=[into(pods(A, named("y")))]),
                expect={f"80/{protocol}": ALL.closed("*", "x/a").open("y/a", "x/a")},
            ),
            upstream=f"{name}: enforce policy to allow traffic only from a pod in a different namespace based on"
            " PodSelector and NamespaceSelector",
        ),
    )


PROTOCOLS = (
    case(
        "protocol-without-port",
        step(
            "x/a takes every port of TCP",
            policy("x/tcp", A, types=["Ingress"], ingress=[into(ports=[port(protocol="TCP")])]),
            expect={"80/tcp 81/tcp": ALL, "80/udp 81/sctp": ALL.closed("*", "x/a")},
        ),
        upstream="enforce ingress policy allowing any port traffic to a server on a specific protocol",
    ),
    case(
        "sctp-is-not-tcp",
        step(
            "x is denied, but for SCTP at 81 of x/a",
            policy("x/deny", EVERY, types=["Ingress"], ingress=[]),
            policy("x/sctp", A, types=["Ingress"], ingress=[into(ports=[port(81, "SCTP")])]),
            expect={"81/tcp 81/udp": ALL.closed("*", "x/*"), "81/sctp": ALL.closed("*", "x/b x/c")},
        ),
        upstream="not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP",
        hazard="A8",
    ),
    case(
        "sctp-isolates",
        step(
            "x/a takes SCTP at 80 alone",
            policy("x/sctp", A, types=["Ingress"], ingress=[into(ports=[port(80, "SCTP")])]),
            expect={"81/tcp 80/tcp": ALL.closed("*", "x/a")},
        ),
        upstream="properly isolate pods that are selected by a policy allowing SCTP, even if the plugin doesn't support"
        " SCTP",
        hazard="A8",
    ),
    case(
        "udp-is-not-tcp",
        step(
            "x/a takes UDP at 81 alone",
            policy("x/udp", A, types=["Ingress"], ingress=[into(ports=[port(81, "UDP")])]),
            expect={"81/tcp 81/sctp": ALL.closed("*", "x/a"), "81/udp": ALL},
        ),
        upstream="not allow access by TCP when a policy specifies only UDP",
        hazard="A10",
    ),
)

LABELS = (
    case(
        "namespace-gets-a-label",
        step(
            "x/a takes namespaces of a label that none has",
            policy("x/updated", A, types=["Ingress"], ingress=[into(spaces(labels(ns2="updated")))]),
            expect={"80/tcp": ALL.closed("*", "x/a")},
        ),
        step(
            "y gets the label",
            namespace("y", ns2="updated"),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/*", "x/a")},
        ),
        upstream="allow ingress access from updated namespace",
        hazard="A24",
    ),
    case(
        "pod-gets-a-label",
        step(
            "x/a takes pods with two labels, one of which none has",
            policy("x/updated", A, types=["Ingress"], ingress=[into(pods(labels(pod="b", pod2="updated")))]),
            expect={"80/tcp": ALL.closed("*", "x/a")},
        ),
        step(
            "x/b gets the label",
            pod("x/b", labels={"pod": "b", "pod2": "updated"}),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/b", "x/a")},
        ),
        upstream="allow ingress access from updated pod",
        hazard="A24",
    ),
    case(
        "pod-becomes-a-subject",
        step(
            "x is denied where a label asks for it, which no pod has",
            policy("x/isolated", labels(target="isolated"), types=["Ingress"], ingress=[]),
            expect={"80/tcp": ALL},
        ),
        step(
            "x/a gets the label",
            pod("x/a", labels={"pod": "a", "target": "isolated"}),
            expect={"80/tcp": ALL.closed("*", "x/a")},
        ),
        upstream="deny ingress access to updated pod",
        hazard="A24",
    ),
)

CASES: tuple[Case, ...] = (*_protocol_cases("udp"), *_protocol_cases("sctp"), *PROTOCOLS, *LABELS)
