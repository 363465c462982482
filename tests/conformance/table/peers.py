"""Shapes of peers and rules: what is absent, empty or filled, in both directions; ranges of addresses."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance.words import (
    ALL,
    ANY_INTO,
    EVERY,
    NONE,
    Case,
    Manifest,
    Reach,
    block,
    case,
    closes,
    into,
    labels,
    named,
    namespace,
    no_pod,
    no_policy,
    opens,
    out,
    pod,
    pods,
    policy,
    port,
    refused,
    spaces,
    step,
    where,
)

A, B = labels(pod="a"), labels(pod="b")
OUTSIDE = "203.0.113.9"

PEERS: Mapping[str, tuple[Manifest, str]] = {
    "every-pod": (pods(EVERY), "x/*"),
    "pods-b": (pods(B), "x/b"),
    "every-namespace": (spaces(EVERY), "*"),
    "namespace-y": (spaces(named("y")), "y/*"),
    "every-pod-of-every-namespace": (pods(EVERY, EVERY), "*"),
    "every-pod-of-y": (pods(EVERY, named("y")), "y/*"),
    "pods-b-of-every-namespace": (pods(B, EVERY), "x/b y/b z/b"),
    "pods-b-of-y": (pods(B, named("y")), "y/b"),
}
"""Absent, empty and filled selectors of pods and of namespaces: the peer of a policy in x, and whom it means."""


def _peer_cases() -> tuple[Case, ...]:
    """Each of them as the only peer of x/a, in either direction."""
    return tuple(
        case(
            f"peer-{name}",
            step(
                "x/a takes from them",
                policy("x/in", A, ingress=[into(peer)]),
                expect={"80/tcp": ALL.closed("*", "x/a").open(whom, "x/a")},
                claims=[closes(OUTSIDE, "x/a")],
            ),
            step(
                "x/a may send to them",
                no_policy("x/in"),
                policy("x/out", A, types=["Egress"], egress=[out(peer)]),
                expect={"80/tcp": ALL.closed("x/a", "*").open("x/a", whom)},
                claims=[closes("x/a", OUTSIDE)],
            ),
            hazard="A11",
        )
        for name, (peer, whom) in PEERS.items()
    )


CLOSED_A = {"80/tcp": ALL.closed("*", "x/a")}
RULES = (
    case(
        "no-rules-in-three-ways",
        step("the list is absent", policy("x/in", A, types=["Ingress"]), expect=CLOSED_A),
        step("so are the types", policy("x/in", A), expect=CLOSED_A),
        step("the list is empty", policy("x/in", A, ingress=[]), expect=CLOSED_A, claims=[closes(OUTSIDE, "x/a")]),
        hazard="A11",
    ),
    case(
        "an-empty-rule-is-everything",
        step(
            "one rule, empty",
            policy("x/in", A, ingress=[ANY_INTO]),
            expect={"80/tcp 81/udp": ALL},
            claims=[opens(OUTSIDE, "x/a")],
        ),
        step(
            "empty lists are absent lists",
            policy("x/in", A, ingress=[{"from": [], "ports": []}]),
            expect={"80/tcp 81/udp": ALL},
            claims=[opens(OUTSIDE, "x/a")],
        ),
        step(
            "of two rules one is empty",
            policy("x/in", A, ingress=[into(pods(B)), ANY_INTO]),
            expect={"80/tcp 81/udp": ALL},
        ),
        hazard="A11",
    ),
    case(
        "an-empty-peer-is-nobody",
        refused(
            step(
                "from one peer that names nothing",
                policy("x/in", A, ingress=[into({})]),
                expect=CLOSED_A,
                claims=[closes(OUTSIDE, "x/a")],
            )
        ),
        refused(
            step(
                "beside one that names x/b",
                policy("x/in", A, ingress=[into({}, pods(B))]),
                expect={"80/tcp": ALL.closed("*", "x/a").open("x/b", "x/a")},
            )
        ),
        hazard="A11",
    ),
    case(
        "nobody-matches",
        step(
            "x/a takes a pod d",
            policy("x/in", A, ingress=[into(pods(labels(pod="d")))]),
            pod("x/d", node="node2"),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/d", "x/a")},
        ),
        step("the pod goes", no_pod("x/d"), expect=CLOSED_A, claims=[closes(OUTSIDE, "x/a")]),
        step(
            "x/a may send to it alone",
            policy("x/out", A, types=["Egress"], egress=[out(pods(labels(pod="d")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").closed("x/a", "*")},
        ),
        hazard="A12",
    ),
    case(
        "nobody-is-selected",
        step(
            "a policy of x selects a pod that is not there",
            policy("x/in", labels(pod="d"), ingress=[]),
            expect={"80/tcp": ALL},
        ),
    ),
    case(
        "one-item-is-and",
        step(
            "y is of team green",
            namespace("y", team="green"),
            pod("y/b", labels={"pod": "b", "yes": "1"}),
            pod("x/b", labels={"pod": "b", "yes": "1"}),
            policy("x/in", A, ingress=[into(pods(labels(yes="1"), labels(team="green")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/b", "x/a")},
        ),
        step(
            "two items are or",
            policy("x/in", A, ingress=[into(pods(labels(yes="1")), spaces(labels(team="green")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/b y/*", "x/a")},
        ),
        step(
            "so are two rules",
            policy("x/in", A, ingress=[into(pods(labels(yes="1"))), into(spaces(labels(team="green")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/b y/*", "x/a")},
        ),
        hazard="A13",
    ),
    case(
        "peers-and-ports-belong-together",
        step(
            "x/b at 80, y at 81",
            policy("x/in", A, ingress=[into(pods(B), ports=[port(80)]), into(spaces(named("y")), ports=[port(81)])]),
            expect={
                "80/tcp": ALL.closed("*", "x/a").open("x/b", "x/a"),
                "81/tcp": ALL.closed("*", "x/a").open("y/*", "x/a"),
            },
        ),
    ),
)


def _only(sources: str) -> dict[str, Reach]:
    return {"80/tcp": ALL.closed("*", "x/a").open(sources, "x/a")}


BLOCKS = (
    case(
        "except-is-its-own-peers",
        step(
            "everyone but x/b",
            policy("x/one", A, ingress=[into(block("{x/b:8}", "{x/b}/32"))]),
            expect={"80/tcp": ALL.closed("x/b", "x/a")},
            claims=[closes(OUTSIDE, "x/a")],
        ),
        step("another policy takes x/b", policy("x/two", A, ingress=[into(block("{x/b}/32"))]), expect={"80/tcp": ALL}),
        step("it goes", no_policy("x/two"), expect={"80/tcp": ALL.closed("x/b", "x/a")}),
        step(
            "another rule takes x/b",
            policy("x/one", A, ingress=[into(block("{x/b:8}", "{x/b}/32")), into(block("{x/b}/32"))]),
            expect={"80/tcp": ALL},
        ),
        step(
            "another peer takes x/b",
            policy("x/one", A, ingress=[into(block("{x/b:8}", "{x/b}/32"), pods(B))]),
            expect={"80/tcp": ALL},
        ),
        hazard="A14",
    ),
    case(
        "blocks-hold-pods",
        step("x/a takes the address of y/b", policy("x/in", A, ingress=[into(block("{y/b}/32"))]), expect=_only("y/b")),
        step("a range around it", policy("x/in", A, ingress=[into(block("{y/b:8}"))]), expect={"80/tcp": ALL}),
        step(
            "every address",
            policy("x/in", A, ingress=[into(block("0.0.0.0/0"))]),
            expect={"80/tcp": ALL},
            claims=[opens(OUTSIDE, "x/a"), opens("node2", "x/a")],
        ),
        step(
            "every address but two",
            policy("x/in", A, ingress=[into(block("0.0.0.0/0", "{x/b}/32", "{y/b}/32"))]),
            expect={"80/tcp": ALL.closed("x/b y/b", "x/a")},
            claims=[opens(OUTSIDE, "x/a")],
        ),
        step(
            "addresses of nobody",
            policy("x/in", A, ingress=[into(block("0.0.0.0/31"))]),
            expect=_only(""),
            claims=[closes(OUTSIDE, "x/a"), closes("node2", "x/a")],
        ),
        hazard="A15",
    ),
    case(
        "blocks-for-egress",
        step(
            "x/a may send to every address but that of y/b",
            policy("x/out", A, types=["Egress"], egress=[out(block("0.0.0.0/0", "{y/b}/32"))]),
            expect={"80/tcp": ALL.closed("x/a", "y/b")},
            claims=[opens("x/a", OUTSIDE)],
        ),
        step(
            "to what is outside alone",
            policy("x/out", A, types=["Egress"], egress=[out(block("203.0.113.0/24"))]),
            expect={"80/tcp": ALL.closed("x/a", "*")},
            claims=[opens("x/a", OUTSIDE), closes("x/a", "198.51.100.1")],
        ),
        hazard="A15",
    ),
    case(
        "host-bits-do-not-count",
        refused(
            step(
                "x/a takes a range that is written by an address in it",
                policy("x/in", A, ingress=[into(block("{y/b}/8"))]),
                expect={"80/tcp": ALL},
            )
        ),
        refused(
            step(
                "an exception is written so",
                policy("x/in", A, ingress=[into(block("0.0.0.0/0", "{y/b}/8"))]),
                expect=_only(""),
                claims=[opens(OUTSIDE, "x/a")],
            )
        ),
        hazard="A15",
    ),
    case(
        "blocks-of-the-other-family",
        step(
            "x/a takes IPv6 alone",
            policy("x/in", A, ingress=[into(block("fd00::/8", "fd00:1::/64"))]),
            expect=_only(""),
        ),
        step(
            "or the address of x/b",
            policy("x/in", A, ingress=[into(block("fd00::/8"), block("{x/b}/32"))]),
            expect=_only("x/b"),
        ),
        step(
            "x/a may send to all of IPv6 alone",
            policy("x/out", A, types=["Egress"], egress=[out(block("::/0"))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/b", "x/a").closed("x/a", "*")},
        ),
        hazard="A15",
    ),
    case(
        "blocks-and-pods-together",
        step(
            "all pods by selector, no address",
            policy("x/in", A, ingress=[into(block("0.0.0.0/31"), spaces(EVERY))]),
            expect={"80/tcp": ALL},
            claims=[closes(OUTSIDE, "x/a")],
        ),
        step(
            "all addresses, no pod by selector",
            policy("x/in", A, ingress=[into(block("0.0.0.0/0"), spaces(labels(nobody="here")))]),
            expect={"80/tcp": ALL},
            claims=[opens(OUTSIDE, "x/a")],
        ),
        step(
            "neither",
            policy("x/in", A, ingress=[into(block("0.0.0.0/31"), spaces(labels(nobody="here")))]),
            expect=_only(""),
        ),
    ),
)

SELECTORS = tuple(
    case(
        f"subjects-{name}",
        step("they take nothing", policy("x/in", selector, ingress=[]), expect={"80/tcp": ALL.closed("*", whom)}),
    )
    for name, selector, whom in (
        ("by-nothing", {}, "x/*"),
        ("by-empty-lists", {"matchLabels": {}, "matchExpressions": []}, "x/*"),
        ("by-both-forms", {**A, **where("pod", "NotIn", "b")}, "x/a"),
        ("by-forms-that-contradict", {**A, **where("pod", "NotIn", "a")}, ""),
        ("by-several-values", where("pod", "In", "a", "c"), "x/a x/c"),
    )
)

EVERYWHERE = (
    case(
        "every-namespace-denies",
        step(
            "x, y and z take nothing",
            *(policy(f"{name}/deny", EVERY, ingress=[]) for name in "xyz"),
            expect={"80/tcp": NONE},
        ),
        step(
            "y may be reached by pods b",
            policy("y/deny", EVERY, ingress=[into(pods(B, EVERY))]),
            expect={"80/tcp": NONE.open("x/b y/b z/b", "y/*")},
        ),
    ),
)

CASES: tuple[Case, ...] = (*_peer_cases(), *RULES, *BLOCKS, *SELECTORS, *EVERYWHERE)
