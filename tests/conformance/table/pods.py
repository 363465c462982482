"""Pods that come, go, finish, wait for an address or use their node's; nodes; labels that change."""

from __future__ import annotations

from tests.conformance.words import (
    ALL,
    EVERY,
    Case,
    Manifest,
    Way,
    block,
    case,
    closes,
    into,
    labels,
    named,
    namespace,
    no_namespace,
    no_pod,
    opens,
    out,
    pod,
    pods,
    policy,
    spaces,
    step,
    where,
)

A = labels(pod="a")
FIRST, SECOND = "192.168.7{lane}.9", "192.168.7{lane}.10"


def _at(address: str, phase: str = "Running") -> Manifest:
    return {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]}


ADDRESSES = (
    case(
        "a-finished-pod-is-nothing",
        step(
            "x/job is selected by one policy and named by another",
            pod("x/job", status=_at(FIRST)),
            policy("x/job", labels(pod="job"), ingress=[]),
            policy("x/a", A, ingress=[into(pods(labels(pod="job")))]),
            expect={"80/tcp": ALL.closed("*", "x/a x/job").open("x/job", "x/a")},
        ),
        step("it finishes", pod("x/job", status=_at(FIRST, "Succeeded")), expect={"80/tcp": ALL.closed("*", "x/a")}),
        step(
            "another pod gets its address", pod("x/heir", status=_at(FIRST)), expect={"80/tcp": ALL.closed("*", "x/a")}
        ),
        step("the finished one goes", no_pod("x/job"), expect={"80/tcp": ALL.closed("*", "x/a")}),
        hazard="A1",
    ),
    case(
        "a-failed-pod-is-nothing",
        step(
            "x/job has failed",
            pod("x/job", status=_at(FIRST, "Failed")),
            policy("x/a", A, ingress=[into(pods(labels(pod="job")))]),
            expect={"80/tcp": ALL.closed("*", "x/a")},
        ),
        hazard="A1",
    ),
    case(
        "a-new-pod-is-denied-from-the-start",
        step(
            "x is denied in both directions",
            policy("x/deny", EVERY, types=["Ingress", "Egress"]),
            expect={"80/tcp": ALL.closed("*", "x/*").closed("x/*", "*")},
        ),
        step(
            "a pod comes",
            pod("x/new", node="node2"),
            expect={"80/tcp 80/udp": ALL.closed("*", "x/*").closed("x/*", "*")},
        ),
        step("it goes", no_pod("x/new"), expect={"80/tcp": ALL.closed("*", "x/*").closed("x/*", "*")}),
        hazard="A2",
    ),
    case(
        "a-pod-gets-loses-and-changes-its-address",
        step(
            "x/late has none yet",
            pod("x/late", status={"phase": "Pending"}),
            policy("x/late", labels(pod="late"), ingress=[]),
            policy("x/a", A, ingress=[into(pods(labels(pod="late")))]),
            expect={"80/tcp": ALL.closed("*", "x/a")},
        ),
        step(
            "it gets one",
            pod("x/late", status=_at(FIRST)),
            expect={"80/tcp": ALL.closed("*", "x/a x/late").open("x/late", "x/a")},
        ),
        step("it loses it", pod("x/late", status={"phase": "Running"}), expect={"80/tcp": ALL.closed("*", "x/a")}),
        step(
            "it gets another",
            pod("x/late", status=_at(SECOND)),
            expect={"80/tcp": ALL.closed("*", "x/a x/late").open("x/late", "x/a")},
        ),
        hazard="A3",
        without={Way.API: "a pod without an address gets one of ours there"},
    ),
    case(
        "an-address-among-podips",
        step(
            "IPv6 comes first",
            pod(
                "x/dual", status={"phase": "Running", "podIP": "fd00::9", "podIPs": [{"ip": "fd00::9"}, {"ip": FIRST}]}
            ),
            policy("x/in", labels(pod="dual"), ingress=[into(block("{x/b}/32"))]),
            expect={"80/tcp": ALL.closed("*", "x/dual").open("x/b", "x/dual")},
        ),
        hazard="A30",
    ),
    case(
        "an-unready-pod-stays-policed",
        step(
            "x/old is not ready",
            pod("x/old", status={**_at(FIRST), "conditions": [{"type": "Ready", "status": "False"}]}),
            policy("x/old", labels(pod="old"), ingress=[]),
            policy("x/a", A, ingress=[into(pods(labels(pod="old")))]),
            expect={"80/tcp": ALL.closed("*", "x/old x/a").open("x/old", "x/a")},
        ),
        hazard="A29",
    ),
    case(  # That its policy does not go before it, is in tests/apiserver/test_namespace_end.py.
        "an-ending-pod-stays-policed",
        step(
            "x/old is being deleted",
            {
                **(ending := pod("x/old", status=_at(FIRST))),
                "metadata": {
                    **ending["metadata"],
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                    "deletionGracePeriodSeconds": 300,
                },
            },
            policy("x/old", labels(pod="old"), ingress=[]),
            policy("x/a", A, ingress=[into(pods(labels(pod="old")))]),
            expect={"80/tcp": ALL.closed("*", "x/old x/a").open("x/old", "x/a")},
        ),
        hazard="A29",
        without={Way.API: "a pod that is being deleted there ends at once: its emulated kubelet grants no grace"},
    ),
)

HOST = pod("x/host", node="node2", hostNetwork=True, ports=[], status=_at("{node2}"))
NODES = (
    case(
        "pods-of-the-hosts-network",
        step(
            "a policy of x/a names one, and one of x selects all",
            HOST,
            policy("x/in", A, ingress=[into(pods(labels(pod="host")), spaces(labels(nobody="here")))]),
            policy("x/deny", where("pod", "NotIn", "a"), ingress=[]),
            expect={"80/tcp": ALL.closed("*", "x/*")},
            claims=[closes("node2", "x/a"), opens("node1", "x/a"), opens("y/b", "node2")],
        ),
        step(
            "the address of its node is taken",
            policy("x/in", A, ingress=[into(block("{node2}/32"))]),
            expect={"80/tcp": ALL.closed("*", "x/*")},
            claims=[opens("node2", "x/a"), closes("node3", "x/a")],
        ),
        step(
            "every namespace is taken, which no node is in",
            policy("x/in", A, ingress=[into(spaces(EVERY))]),
            expect={"80/tcp": ALL.closed("*", "x/b x/c")},
            claims=[closes("node2", "x/a"), closes("node3", "x/a")],
        ),
        hazard="A4",
    ),
    case(
        "a-node-and-its-own-pods",
        step(
            "x takes nothing and may send nothing",
            policy("x/deny", EVERY, types=["Ingress", "Egress"]),
            expect={"80/tcp": ALL.closed("*", "x/*").closed("x/*", "*")},
            claims=[
                opens("node1", "x/a"),
                closes("node2", "x/a"),
                opens("node2", "x/c"),
                closes("node3", "x/c"),
                opens("x/a", "node1"),
                closes("x/a", "node2"),
            ],
        ),
        hazard="A5",
    ),
    case(
        "a-pod-reaches-itself",
        step(
            "x takes nothing and may send nothing",
            policy("x/deny", EVERY, types=["Ingress", "Egress"]),
            expect={"80/tcp": ALL.closed("*", "x/*").closed("x/*", "*")},
            claims=[opens("x/a", "x/a"), opens("x/c", "x/c")],
        ),
        hazard="A28",
    ),
)

BOTH = policy("x/in", A, ingress=[into(pods(labels(role="client"), labels(team="green")))])
CLIENT = pod("y/b", labels={"pod": "b", "role": "client"})
GREEN = namespace("y", team="green")
TO_A = {"80/tcp": ALL.closed("*", "x/a").open("y/b", "x/a")}
NOT_TO_A = {"80/tcp": ALL.closed("*", "x/a")}
LABELS = (
    case(
        "labels-of-a-peer-come-and-go",
        step("a pod and its namespace have what x/a asks for", GREEN, CLIENT, BOTH, expect=TO_A),
        step("the pod loses it", pod("y/b"), expect=NOT_TO_A),
        step("and gets it back", CLIENT, expect=TO_A),
        step("the namespace loses it", namespace("y"), expect=NOT_TO_A),
        step("and gets it back", GREEN, expect=TO_A),
        step("with another value", namespace("y", team="blue"), expect=NOT_TO_A),
        hazard="A24",
    ),
    case(
        "labels-of-a-subject-come-and-go",
        step(
            "x is denied where a pod has a label, which x/b has",
            pod("x/b", labels={"pod": "b", "shut": "yes"}),
            policy("x/shut", where("shut", "Exists"), types=["Ingress", "Egress"]),
            expect={"80/tcp": ALL.closed("*", "x/b").closed("x/b", "*")},
        ),
        step("it loses it", pod("x/b"), expect={"80/tcp": ALL}),
        step(
            "x/c gets it, empty",
            pod("x/c", labels={"pod": "c", "shut": ""}),
            expect={"80/tcp": ALL.closed("*", "x/c").closed("x/c", "*")},
        ),
        hazard="A24",
    ),
    case(
        "labels-for-egress-come-and-go",
        step(
            "x/a may send to a role that y/b has",
            CLIENT,
            policy("x/out", A, types=["Egress"], egress=[out(pods(labels(role="client"), EVERY))]),
            expect={"80/tcp": ALL.closed("x/a", "*").open("x/a", "y/b")},
        ),
        step(
            "z/c has it instead",
            pod("y/b"),
            pod("z/c", labels={"role": "client"}),
            expect={"80/tcp": ALL.closed("x/a", "*").open("x/a", "z/c")},
        ),
        hazard="A24",
    ),
    case(
        "labels-between-steps-of-which-nothing-changes",
        step(
            "y/b has a label that nobody asks for",
            pod("y/b", labels={"pod": "b", "colour": "red"}),
            policy("x/in", A, ingress=[into(pods(labels(pod="b"), named("y")))]),
            expect=TO_A,
        ),
        step("it has another", pod("y/b", labels={"pod": "b", "colour": "blue"}), expect=TO_A),
        hazard="A24",
    ),
    case(
        "a-pod-and-a-namespace-come-and-go",
        step(
            "x/a takes pods d and namespace w",
            policy("x/in", A, ingress=[into(pods(labels(pod="d"), EVERY), spaces(named("w")))]),
            expect=NOT_TO_A,
        ),
        step("y/d comes", pod("y/d", node="node2"), expect={"80/tcp": ALL.closed("*", "x/a").open("y/d", "x/a")}),
        step(
            "w comes, with a pod that is called otherwise",
            namespace("w"),
            pod("w/e", node="node3"),
            expect={"80/tcp": ALL.closed("*", "x/a").open("y/d w/e", "x/a")},
        ),
        step("both go", no_pod("y/d"), no_pod("w/e"), no_namespace("w"), expect=NOT_TO_A),
    ),
)

KEYED = (pod("x/b", labels={"pod": "b", "k": "1"}), pod("x/c", labels={"pod": "c", "k": "2"}))
OPERATORS = tuple(
    case(
        f"operator-{name}",
        step(
            "of x it selects these, of which a has no such label",
            *KEYED,
            policy("x/in", selector, ingress=[]),
            expect={"80/tcp": ALL.closed("*", subjects)},
        ),
        step(
            "y/a takes them alone of x",
            policy("x/in", labels(nobody="here"), ingress=[]),
            policy("y/in", A, ingress=[into(pods(selector, named("x")))]),
            expect={"80/tcp": ALL.closed("*", "y/a").open(subjects, "y/a")},
        ),
        step(
            "or namespaces by the same, which have no such label but y",
            namespace("y", k="1"),
            policy("y/in", A, ingress=[into(spaces(selector))]),
            expect={"80/tcp": ALL.closed("*", "y/a").open(namespaces, "y/a")},
        ),
        hazard="A25",
    )
    for name, selector, subjects, namespaces in (
        ("in", where("k", "In", "1"), "x/b", "y/*"),
        ("not-in", where("k", "NotIn", "1"), "x/a x/c", "x/* z/*"),
        ("exists", where("k", "Exists"), "x/b x/c", "y/*"),
        ("does-not-exist", where("k", "DoesNotExist"), "x/a", "x/* z/*"),
    )
)

CASES: tuple[Case, ...] = (*ADDRESSES, *NODES, *LABELS, *OPERATORS)
