"""What tenants add: written out with and without them, where the two are not the same.

Under tenants a policy can close, and open again, only what the tenants leave open.
"""

from __future__ import annotations

from tests.conformance.words import (
    ALL,
    ANY_INTO,
    ANY_OUT,
    EVERY,
    NONE,
    Case,
    block,
    case,
    closes,
    into,
    labels,
    namespace,
    opens,
    out,
    pod,
    pods,
    policy,
    port,
    spaces,
    step,
)

A = labels(pod="a")
APART = NONE.open("x/*", "x/*").open("y/*", "y/*").open("z/*", "z/*")
"""What tenants alone leave open."""

CASES: tuple[Case, ...] = (
    case(
        "tenants-without-policies",
        step(
            "there is no policy",
            expect={"80/tcp 80/udp 80/sctp": ALL},
            tenants={"80/tcp 80/udp 80/sctp": APART},
            claims=[opens("203.0.113.9", "x/a"), opens("x/a", "203.0.113.9")],
        ),
        hazard="E4",
    ),
    case(
        "a-policy-opens-no-other-tenant",
        step(
            "x takes everything from everywhere",
            policy("x/in", EVERY, ingress=[ANY_INTO]),
            expect={"80/tcp": ALL},
            tenants={"80/tcp": APART},
        ),
        step(
            "from all namespaces and all addresses",
            policy("x/in", EVERY, ingress=[into(spaces(EVERY)), into(block("0.0.0.0/0"))]),
            expect={"80/tcp": ALL},
            tenants={"80/tcp": APART},
        ),
        step(
            "y may send to it",
            policy("y/out", EVERY, types=["Egress"], egress=[ANY_OUT]),
            expect={"80/tcp": ALL},
            tenants={"80/tcp": APART},
        ),
        step(
            "x takes y alone, which under tenants is nobody",
            policy("x/in", EVERY, ingress=[into(pods(EVERY, {"matchLabels": {"kubernetes.io/metadata.name": "y"}}))]),
            expect={"80/tcp": ALL.closed("x/* z/*", "x/*")},
            tenants={"80/tcp": APART.closed("x/*", "x/*")},
        ),
        hazard="E4",
    ),
    case(  # docs/hazards.md E2 too: whoever writes labels gains nothing in another tenant.
        "labels-choose-no-tenant",
        step(
            "pods and a namespace say that they are somebody else's",
            namespace("y", tenant="x", owner="x"),
            pod("y/a", labels={"pod": "a", "tenant": "x", "owner": "x"}),
            policy("x/in", A, ingress=[into(pods(labels(owner="x"), EVERY), spaces(labels(owner="x")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/*", "x/a")},
            tenants={"80/tcp": APART.closed("*", "x/a")},
        ),
        hazard="E4",
    ),
    case(
        "a-shared-tenant",
        step(
            "every tenant reaches it, it reaches none",
            namespace("shared"),
            pod("shared/dns", node="node2"),
            expect={"80/udp": ALL},
            tenants={"80/udp": APART.open("* shared/*", "shared/*")},
        ),
        step(
            "its own policy limits that",
            policy("shared/in", EVERY, ingress=[into(ports=[port(80, "UDP")])]),
            expect={"80/udp": ALL, "80/tcp": ALL.closed("*", "shared/*")},
            tenants={"80/udp": APART.open("*", "shared/*"), "80/tcp": APART},
        ),
        step(
            "and the egress of others",
            policy("x/out", EVERY, types=["Egress"], egress=[out(pods(EVERY))]),
            expect={"80/udp": ALL.closed("x/*", "y/* z/* shared/*")},
            tenants={"80/udp": APART.open("*", "shared/*").closed("x/*", "shared/*")},
        ),
        hazard="E4",
    ),
    case(
        "addresses-open-no-other-tenant",
        step(
            "x/a takes the address of y/b",
            policy("x/in", A, ingress=[into(block("{y/b}/32"))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/b", "x/a")},
            tenants={"80/tcp": APART.closed("*", "x/a")},
            claims=[closes("203.0.113.9", "x/a")],
        ),
        hazard="E4",
    ),
)
