"""Egress cases of the upstream NetworkPolicy end-to-end list, and those about both directions."""

from __future__ import annotations

from tests.conformance.words import (
    ALL,
    ANY_OUT,
    EVERY,
    Case,
    block,
    case,
    into,
    labels,
    named,
    out,
    pods,
    policy,
    port,
    spaces,
    step,
    where,
)

A = labels(pod="a")

CASES: tuple[Case, ...] = (
    case(
        "egress-denied-to-a-pod",
        step(
            "x/a may send nothing",
            policy("x/quiet", A, types=["Egress"], egress=[]),
            expect={"80/tcp": ALL.closed("x/a", "*")},
        ),
        upstream="deny egress from pods based on PodSelector",
    ),
    case(
        "egress-denied-to-a-namespace",
        step(
            "x may send nothing",
            policy("x/quiet", EVERY, types=["Egress"], egress=[]),
            expect={"80/tcp": ALL.closed("x/*", "*")},
        ),
        upstream="deny egress from all pods in a namespace",
    ),
    case(
        "egress-named-port",
        step(
            "x may send to ports that are called so",
            policy("x/by-name", labels(), types=["Egress"], egress=[out(ports=[port("serve-80-tcp")])]),
            expect={"80/tcp": ALL, "81/tcp": ALL.closed("x/*", "*")},
        ),
        upstream="allow egress access on one named port",
    ),
    case(
        "both-directions-in-one-policy",
        step(
            "x/a takes x/b alone, and may send to 80 alone",
            policy(
                "x/both",
                A,
                types=["Egress", "Ingress"],
                ingress=[into(pods(labels(pod="b")))],
                egress=[out(ports=[port(80)])],
            ),
            expect={
                "80/tcp": ALL.closed("*", "x/a").open("x/b", "x/a"),
                "81/tcp": ALL.closed("*", "x/a").closed("x/a", "*").open("x/b", "x/a"),
            },
        ),
        upstream="work with Ingress, Egress specified together",
    ),
    case(
        "egress-denied-though-ingress-allows",
        step(
            "x/a may send to y/a alone, y/a and y/b take x/a alone",
            policy("x/to-ya", A, types=["Egress"], egress=[out(pods(A, named("y")))]),
            policy("y/a-from-xa", A, types=["Ingress"], ingress=[into(pods(A, named("x")))]),
            policy("y/b-from-xa", labels(pod="b"), types=["Ingress"], ingress=[into(pods(A, named("x")))]),
            expect={"80/tcp": ALL.closed("x/a", "*").closed("*", "y/a y/b").open("x/a", "y/a")},
        ),
        upstream="support denying of egress traffic on the client side (even if the server explicitly allows this"
        " traffic)",
    ),
    case(
        "egress-to-one-pod-of-another-namespace",
        step(
            "x/a may send to y/a alone",
            policy("x/to-ya", A, types=["Egress"], egress=[out(pods(A, named("y")))]),
            expect={"80/tcp": ALL.closed("x/a", "*").open("x/a", "y/a")},
        ),
        upstream="enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and"
        " NamespaceSelector",
    ),
    case(
        "egress-allow-all-over-a-port",
        step(
            "x may send to 80 alone",
            policy("x/80", labels(), types=["Egress"], egress=[out(ports=[port(80)])]),
            expect={"81/tcp": ALL.closed("x/*", "*")},
        ),
        step(
            "a second policy allows everything",
            policy("x/all", labels(), types=["Egress"], egress=[ANY_OUT]),
            expect={"81/tcp": ALL},
        ),
        upstream="enforce multiple egress policies with egress allow-all policy taking precedence",
    ),
    case(
        "egress-to-cidr",
        step(
            "x/a may send to the address of y/b",
            policy("x/cidr", A, types=["Egress"], egress=[out(block("{y/b}/32"))]),
            expect={"80/tcp": ALL.closed("x/a", "*").open("x/a", "y/b")},
        ),
        upstream="allow egress access to server in CIDR block",
    ),
    case(
        "egress-except",
        step(
            "x/a may send to a wide range without the address of x/b",
            policy("x/cidr", A, types=["Egress"], egress=[out(block("{x/b:8}", "{x/b}/32"))]),
            expect={"80/tcp": ALL.closed("x/a", "x/b")},
        ),
        upstream="enforce except clause while egress access to server in CIDR block",
    ),
    case(
        "egress-except-then-allowed",
        step(
            "x/a may send to a wide range without the address of x/b",
            policy("x/cidr", A, types=["Egress"], egress=[out(block("{x/b:8}", "{x/b}/32"))]),
            expect={"80/tcp": ALL.closed("x/a", "x/b")},
        ),
        step(
            "the policy is replaced by one for that address",
            policy("x/cidr", A, types=["Egress"], egress=[out(block("{x/b}/32"))]),
            expect={"80/tcp": ALL.closed("x/a", "*").open("x/a", "x/b")},
        ),
        upstream="ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
    ),
    case(
        "directions-are-independent",
        step(
            "x/a may send everywhere", policy("x/send", A, types=["Egress"], egress=[ANY_OUT]), expect={"80/tcp": ALL}
        ),
        step(
            "x/a takes nothing",
            policy("x/deny", A, types=["Ingress"], ingress=[]),
            expect={"80/tcp": ALL.closed("*", "x/a")},
        ),
        upstream="enforce policies to check ingress and egress policies can be controlled independently based on"
        " PodSelector",
    ),
    case(
        "egress-namespace-default-label",
        step(
            "x/a may send to every namespace but y",
            policy(
                "x/not-y", A, types=["Egress"], egress=[out(spaces(where("kubernetes.io/metadata.name", "NotIn", "y")))]
            ),
            expect={"80/tcp": ALL.closed("x/a", "y/*")},
        ),
        upstream="enforce policy based on NamespaceSelector with MatchExpressions using default ns label",
    ),
)
