"""Ingress cases of the upstream NetworkPolicy end-to-end list (k8s.io/kubernetes test/e2e/network/netpol)."""

from __future__ import annotations

from tests.conformance.words import (
    ALL,
    ANY_INTO,
    EVERY,
    Case,
    case,
    into,
    labels,
    named,
    no_policy,
    pods,
    policy,
    port,
    spaces,
    step,
    where,
)

A = labels(pod="a")
FROM_Y_81 = policy("x/from-y", A, types=["Ingress"], ingress=[into(spaces(named("y")), ports=[port(81, "TCP")])])
FROM_Y_80 = policy("x/from-y-too", A, types=["Ingress"], ingress=[into(spaces(named("y")), ports=[port(80, "TCP")])])
ONLY_Y_TO_A = ALL.closed("x/* z/*", "x/a")

DENY = (
    case(
        "default-deny-ingress",
        step(
            "a policy selects all of x and lists Ingress",
            policy("x/deny", EVERY, types=["Ingress"], ingress=[]),
            expect={"80/tcp": ALL.closed("*", "x/*")},
        ),
        upstream="support a 'default-deny-ingress' policy",
    ),
    case(
        "default-deny-all",
        step(
            "a policy selects all of x in both directions",
            policy("x/deny", EVERY, types=["Ingress", "Egress"], ingress=[], egress=[]),
            expect={"80/tcp": ALL.closed("*", "x/*").closed("x/*", "*")},
        ),
        upstream="support a 'default-deny-all' policy",
    ),
    case(
        "stacked-allow-over-deny",
        step(
            "all of x is denied, and x/a allowed from pods everywhere",
            policy("x/deny", EVERY, types=["Ingress"], ingress=[]),
            policy("x/allow-a", A, types=["Ingress"], ingress=[into(pods(EVERY, EVERY))]),
            expect={"80/tcp": ALL.closed("*", "x/b x/c")},
        ),
        upstream="enforce policy to allow ingress traffic for a target",
    ),
    case(
        "same-namespace-only",
        step(
            "x takes its own pods alone, by an empty podSelector",
            policy("x/own", EVERY, types=["Ingress"], ingress=[into(pods(labels()))]),
            expect={"80/tcp": ALL.closed("y/* z/*", "x/*")},
        ),
        upstream="deny ingress from pods on other namespaces",
    ),
)

PEERS = (
    case(
        "pod-selector",
        step(
            "x/a takes x/b alone",
            policy("x/b-to-a", A, types=["Ingress"], ingress=[into(pods(labels(pod="b")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/b", "x/a")},
        ),
        upstream="enforce policy to allow traffic from pods within server namespace based on PodSelector",
    ),
    case(
        "all-namespaces",
        step(
            "x/a takes pods of all namespaces",
            policy("x/from-all", A, types=["Ingress"], ingress=[into(spaces(labels()))]),
            expect={"80/tcp": ALL},
        ),
        upstream="enforce policy to allow ingress traffic from pods in all namespaces",
    ),
    case(
        "namespace-selector",
        step(
            "x/a takes namespace y alone",
            policy("x/from-y", A, types=["Ingress"], ingress=[into(spaces(named("y")))]),
            expect={"80/tcp": ONLY_Y_TO_A},
        ),
        upstream="enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
    ),
    case(
        "namespace-default-label",
        step(
            "x/a takes the namespace that the API server labels y",
            policy("x/from-y", A, types=["Ingress"], ingress=[into(spaces(named("y")))]),
            expect={"80/tcp": ONLY_Y_TO_A},
        ),
        upstream="enforce policy to allow traffic based on NamespaceSelector with MatchLabels using default ns label",
    ),
    case(
        "pod-selector-expression",
        step(
            "x/a takes x/b by an expression",
            policy("x/b-to-a", A, types=["Ingress"], ingress=[into(pods(where("pod", "In", "b")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/b", "x/a")},
        ),
        upstream="enforce policy based on PodSelector with MatchExpressions",
    ),
    case(
        "namespace-selector-expression",
        step(
            "x/a takes y by an expression",
            policy(
                "x/from-y",
                A,
                types=["Ingress"],
                ingress=[into(spaces(where("kubernetes.io/metadata.name", "In", "y")))],
            ),
            expect={"80/tcp": ONLY_Y_TO_A},
        ),
        upstream="enforce policy based on NamespaceSelector with MatchExpressions",
    ),
    case(
        "pod-or-namespace",
        step(
            "x/a takes every other namespace, or x/b",
            policy(
                "x/or",
                A,
                types=["Ingress"],
                ingress=[into(spaces(where("kubernetes.io/metadata.name", "NotIn", "x")), pods(labels(pod="b")))],
            ),
            expect={"80/tcp": ALL.closed("x/c", "x/a")},
        ),
        upstream="enforce policy based on PodSelector or NamespaceSelector",
    ),
    case(
        "pod-and-namespace",
        step(
            "x/a takes the pods b of other namespaces",
            policy(
                "x/and",
                A,
                types=["Ingress"],
                ingress=[into(pods(labels(pod="b"), where("kubernetes.io/metadata.name", "NotIn", "x")))],
            ),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/b z/b", "x/a")},
        ),
        upstream="enforce policy based on PodSelector and NamespaceSelector",
    ),
    case(
        "pods-and-namespaces",
        step(
            "x/a takes the pods b and c of other namespaces",
            policy(
                "x/and",
                A,
                types=["Ingress"],
                ingress=[into(pods(where("pod", "In", "b", "c"), where("kubernetes.io/metadata.name", "NotIn", "x")))],
            ),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/b y/c z/b z/c", "x/a")},
        ),
        upstream="enforce policy based on Multiple PodSelectors and NamespaceSelectors",
    ),
    case(
        "any-of-two-pod-selectors",
        step(
            "x/a takes x/b or x/c",
            policy("x/b-or-c", A, types=["Ingress"], ingress=[into(pods(labels(pod="b")), pods(labels(pod="c")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("x/b x/c", "x/a")},
        ),
        upstream="enforce policy based on any PodSelectors",
    ),
    case(
        "one-pod-of-another-namespace",
        step(
            "x/a takes y/a alone",
            policy("x/ya", A, types=["Ingress"], ingress=[into(pods(A, named("y")))]),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/a", "x/a")},
        ),
        upstream="enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and"
        " NamespaceSelector",
    ),
)

PORTS = (
    case(
        "port",
        step("x/a takes y at 81 alone", FROM_Y_81, expect={"81/tcp": ONLY_Y_TO_A, "80/tcp": ALL.closed("*", "x/a")}),
        upstream="enforce policy based on Ports",
    ),
    case(
        "stacked-ports",
        step("x/a takes y at 81", FROM_Y_81, expect={"81/tcp": ONLY_Y_TO_A, "80/tcp": ALL.closed("*", "x/a")}),
        step("another policy adds 80", FROM_Y_80, expect={"81/tcp": ONLY_Y_TO_A, "80/tcp": ONLY_Y_TO_A}),
        upstream="enforce multiple, stacked policies with overlapping podSelectors",
    ),
    case(
        "allow-all",
        step(
            "an empty rule in x",
            policy("x/all", labels(), types=["Ingress"], ingress=[ANY_INTO]),
            expect={"80/tcp 81/tcp": ALL},
        ),
        upstream="support allow-all policy",
    ),
    case(
        "named-port",
        step(
            "x is reached at its port 81 by name",
            policy("x/by-name", labels(), types=["Ingress"], ingress=[into(ports=[port("serve-81-tcp")])]),
            expect={"81/tcp": ALL, "80/tcp": ALL.closed("*", "x/*")},
        ),
        upstream="allow ingress access on one named port",
    ),
    case(
        "named-port-from-namespace",
        step(
            "x/a takes y at its port 80 by name",
            policy(
                "x/by-name",
                A,
                types=["Ingress"],
                ingress=[into(spaces(named("y")), ports=[port("serve-80-tcp", "TCP")])],
            ),
            expect={"80/tcp": ONLY_Y_TO_A, "81/tcp": ALL.closed("*", "x/a")},
        ),
        upstream="allow ingress access from namespace on one named port",
    ),
    case(
        "named-port-of-nobody",
        step(
            "x/a takes a port by a name that no pod has",
            policy("x/by-name", A, types=["Ingress"], ingress=[into(ports=[port("no-such-port", "TCP")])]),
            expect={"80/tcp 81/tcp": ALL.closed("*", "x/a")},
        ),
        upstream="not allow all ports if it cannot limit to the requested port",
    ),
    case(
        "allow-all-over-a-port",
        step(
            "x takes port 80 alone",
            policy("x/80", labels(), types=["Ingress"], ingress=[into(ports=[port(80)])]),
            expect={"81/tcp": ALL.closed("*", "x/*")},
        ),
        step(
            "a second policy allows everything",
            policy("x/all", labels(), types=["Ingress"], ingress=[ANY_INTO]),
            expect={"81/tcp": ALL},
        ),
        upstream="enforce multiple ingress policies with ingress allow-all policy taking precedence",
    ),
)

CHANGES = (
    case(
        "policy-updated",
        step(
            "x takes everything",
            policy("x/turn", labels(), types=["Ingress"], ingress=[ANY_INTO]),
            expect={"81/tcp": ALL},
        ),
        step(
            "the same policy takes nothing",
            policy("x/turn", labels(), types=["Ingress"], ingress=[]),
            expect={"81/tcp": ALL.closed("*", "x/*")},
        ),
        upstream="enforce updated policy",
    ),
    case(
        "policy-deleted",
        step(
            "x is denied in both directions",
            policy("x/deny", EVERY, types=["Ingress", "Egress"], ingress=[], egress=[]),
            expect={"80/tcp": ALL.closed("x/*", "*").closed("*", "x/*")},
        ),
        step("the policy goes", no_policy("x/deny"), expect={"80/tcp": ALL}),
        upstream="stop enforcing policies after they are deleted",
    ),
)

CASES: tuple[Case, ...] = (*DENY, *PEERS, *PORTS, *CHANGES)
