"""Several policies at once: types, unions, both ends, what one policy allows and another does not."""

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
    into,
    labels,
    no_policy,
    out,
    pods,
    policy,
    port,
    spaces,
    step,
)

A, B, C = labels(pod="a"), labels(pod="b"), labels(pod="c")
IN_80 = into(ports=[port(80)])
OUT_81 = out(ports=[port(81)])

OPEN = {"80/tcp": ALL, "81/tcp": ALL}
IN_ONLY = {"80/tcp": ALL, "81/tcp": ALL.closed("*", "x/a")}
OUT_ONLY = {"80/tcp": ALL.closed("x/a", "*"), "81/tcp": ALL}
BOTH = {"80/tcp": ALL.closed("x/a", "*"), "81/tcp": ALL.closed("*", "x/a")}
NO_IN = {"80/tcp 81/tcp": ALL.closed("*", "x/a")}
NO_OUT = {"80/tcp 81/tcp": ALL.closed("x/a", "*")}

TYPES = (
    case(
        "types-that-are-absent",
        step("ingress rules", policy("x/p", A, ingress=[IN_80]), expect=IN_ONLY),
        step(
            "egress rules isolate for ingress too",
            policy("x/p", A, egress=[OUT_81]),
            expect={"80/tcp": ALL.closed("x/a", "*").closed("*", "x/a"), "81/tcp": ALL.closed("*", "x/a")},
        ),
        step("both", policy("x/p", A, ingress=[IN_80], egress=[OUT_81]), expect=BOTH),
        step("an empty list of egress rules is none", policy("x/p", A, ingress=[IN_80], egress=[]), expect=IN_ONLY),
        step("neither", policy("x/p", A), expect=NO_IN),
        hazard="A16",
    ),
    case(
        "types-that-are-listed",
        step(
            "Ingress, with rules of both",
            policy("x/p", A, types=["Ingress"], ingress=[IN_80], egress=[OUT_81]),
            expect=IN_ONLY,
        ),
        step(
            "Egress, with rules of both",
            policy("x/p", A, types=["Egress"], ingress=[IN_80], egress=[OUT_81]),
            expect=OUT_ONLY,
        ),
        step(
            "both, with rules of both",
            policy("x/p", A, types=["Ingress", "Egress"], ingress=[IN_80], egress=[OUT_81]),
            expect=BOTH,
        ),
        step("Egress, with ingress rules alone", policy("x/p", A, types=["Egress"], ingress=[IN_80]), expect=NO_OUT),
        step("Ingress, with egress rules alone", policy("x/p", A, types=["Ingress"], egress=[OUT_81]), expect=NO_IN),
        step(
            "both, without rules",
            policy("x/p", A, types=["Egress", "Ingress"]),
            expect={"80/tcp 81/tcp": ALL.closed("*", "x/a").closed("x/a", "*")},
        ),
        step("an empty list is an absent one", policy("x/p", A, types=[], ingress=[IN_80]), expect=IN_ONLY),
        step("the same type twice", policy("x/p", A, types=["Egress", "Egress"], egress=[OUT_81]), expect=OUT_ONLY),
        hazard="A16",
    ),
)

FROM_B_80 = policy("x/b-at-80", EVERY, ingress=[into(pods(B), ports=[port(80)])])
AT_81 = policy("x/at-81", A, ingress=[into(ports=[port(81)])])
DENY = policy("x/deny", EVERY, ingress=[])
UNITED = {"80/tcp": ALL.closed("*", "x/*").open("x/b", "x/*"), "81/tcp": ALL.closed("*", "x/b x/c")}

UNIONS = (
    case(
        "policies-unite-in-any-order",
        step("a denial, then permissions", DENY, FROM_B_80, AT_81, expect=UNITED),
        step(
            "all but one go",
            no_policy("x/deny"),
            no_policy("x/b-at-80"),
            expect={"80/tcp": ALL.closed("*", "x/a"), "81/tcp": ALL},
        ),
        step("they come the other way round", FROM_B_80, DENY, expect=UNITED),
        step(
            "one is edited",
            policy("x/at-81", A, ingress=[into(pods(C), ports=[port(81)])]),
            expect={"80/tcp": UNITED["80/tcp"], "81/tcp": ALL.closed("*", "x/*").open("x/c", "x/a")},
        ),
        step("one goes", no_policy("x/at-81"), expect={"80/tcp": UNITED["80/tcp"], "81/tcp": ALL.closed("*", "x/*")}),
        hazard="A17",
    ),
    case(
        "egress-policies-unite",
        step(
            "to pods b, to port 81",
            policy("x/to-b", A, types=["Egress"], egress=[out(pods(B, EVERY))]),
            policy("x/to-81", A, types=["Egress"], egress=[OUT_81]),
            expect={"80/tcp": ALL.closed("x/a", "*").open("x/a", "x/b y/b z/b"), "81/tcp": ALL},
        ),
        step(
            "a denial takes nothing away",
            policy("x/quiet", EVERY, types=["Egress"]),
            expect={"80/tcp": ALL.closed("x/*", "*").open("x/a", "x/b y/b z/b"), "81/tcp": ALL.closed("x/b x/c", "*")},
        ),
        hazard="A17",
    ),
    case(
        "two-policies-of-one-name",
        step(
            "in different namespaces",
            policy("x/p", A, ingress=[]),
            policy("y/p", A, ingress=[into(pods(B))]),
            expect={"80/tcp": ALL.closed("*", "x/a y/a").open("y/b", "y/a")},
        ),
        step("one goes", no_policy("x/p"), expect={"80/tcp": ALL.closed("*", "y/a").open("y/b", "y/a")}),
    ),
)

ENDS = (
    case(
        "both-ends-must-allow",
        step(
            "neither does",
            policy("x/out", A, types=["Egress"], egress=[]),
            policy("x/in", B, ingress=[]),
            policy("x/in-c", C, ingress=[]),
            expect={"80/tcp": ALL.closed("x/a", "*").closed("*", "x/b x/c")},
        ),
        step(
            "the source does",
            policy("x/out", A, types=["Egress"], egress=[ANY_OUT]),
            expect={"80/tcp": ALL.closed("*", "x/b x/c")},
        ),
        step(
            "both do",
            policy("x/in", B, ingress=[ANY_INTO]),
            policy("x/in-c", C, ingress=[ANY_INTO]),
            expect={"80/tcp": ALL},
        ),
        step(
            "the destination does",
            policy("x/out", A, types=["Egress"], egress=[]),
            expect={"80/tcp": ALL.closed("x/a", "*")},
        ),
        hazard="A18",
    ),
    case(
        "replies-need-no-permission",
        step(
            "x/a may send nothing and is reached at 80",
            policy("x/quiet", A, types=["Egress"], egress=[]),
            policy("x/in", A, ingress=[IN_80]),
            expect={"80/tcp": ALL.closed("x/a", "*"), "81/tcp 80/udp": ALL.closed("x/a", "*").closed("*", "x/a")},
        ),
        hazard="A19",
    ),
    case(
        "what-is-open-is-cut",
        step("nothing is denied", expect={"80/tcp 80/udp 80/sctp": ALL}),
        step(
            "x/a takes nothing", policy("x/in", A, ingress=[]), expect={"80/tcp 80/udp 80/sctp": ALL.closed("*", "x/a")}
        ),
        step(
            "and may send nothing either",
            policy("x/out", A, types=["Egress"]),
            expect={"80/tcp 80/udp 80/sctp": ALL.closed("*", "x/a").closed("x/a", "*")},
        ),
        step("all is allowed again", no_policy("x/in"), no_policy("x/out"), expect={"80/tcp 80/udp 80/sctp": ALL}),
        hazard="A20",
    ),
)

X_B, Y_C = "x/b", "y/c"
ALL_PODS, ALL_ADDRESSES = spaces(EVERY), block("0.0.0.0/0")
NO_PODS, NO_ADDRESSES = spaces(labels(nobody="here")), block("0.0.0.0/31")


def _conflict(name: str, first: dict[str, object], second: dict[str, object], *, is_open: bool) -> Case:
    """Two policies of one direction: y/c takes, then x/b sends, what the two allow together."""

    def rules(given: dict[str, object], side: str) -> list[object]:
        return [] if given is NOTHING else [{side: [given]}] if given else [{}]

    closed_in, closed_out = ALL.closed("*", Y_C), ALL.closed(X_B, "*")
    return case(
        f"conflict-{name}",
        step(
            "y/c takes what they allow",
            policy("y/one", C, ingress=rules(first, "from")),
            policy("y/two", C, ingress=rules(second, "from")),
            expect={"80/tcp": ALL if is_open else closed_in},
        ),
        step(
            "x/b sends what they allow",
            no_policy("y/one"),
            no_policy("y/two"),
            policy("x/one", B, types=["Egress"], egress=rules(first, "to")),
            policy("x/two", B, types=["Egress"], egress=rules(second, "to")),
            expect={"80/tcp": ALL if is_open else closed_out},
        ),
        hazard="A17",
    )


NOTHING: dict[str, object] = {"no": "rule"}
ANYTHING: dict[str, object] = {}
CONFLICTS = (
    _conflict("nothing-and-everything", NOTHING, ANYTHING, is_open=True),
    _conflict("nothing-and-all-pods", NOTHING, dict(ALL_PODS), is_open=True),
    _conflict("nothing-and-all-addresses", NOTHING, dict(ALL_ADDRESSES), is_open=True),
    _conflict("no-address-and-all-pods", dict(NO_ADDRESSES), dict(ALL_PODS), is_open=True),
    _conflict("no-pod-and-all-addresses", dict(NO_PODS), dict(ALL_ADDRESSES), is_open=True),
    _conflict("no-pod-and-no-address", dict(NO_PODS), dict(NO_ADDRESSES), is_open=False),
    case(
        "conflict-of-the-two-ends",
        step(
            "x/b may send nothing, y/c takes everything",
            policy("x/p", B, types=["Egress"]),
            policy("y/p", C, ingress=[ANY_INTO]),
            expect={"80/tcp": ALL.closed(X_B, "*")},
        ),
        step(
            "x/b may send everything, y/c takes nothing",
            policy("x/p", B, types=["Egress"], egress=[ANY_OUT]),
            policy("y/p", C, ingress=[]),
            expect={"80/tcp": ALL.closed("*", Y_C)},
        ),
        hazard="A18",
    ),
)

NEIGHBOURS = (
    case(
        "answers-to-arp-pass-every-denial",
        step(
            "everything is denied, but for one path",
            *(policy(f"{name}/deny", EVERY, types=["Ingress", "Egress"]) for name in "xyz"),
            policy("x/out", A, types=["Egress"], egress=[out(pods(B))]),
            policy("x/in", B, ingress=[into(pods(A))]),
            expect={"80/tcp": NONE.open("x/a", "x/b")},
        ),
        hazard="A23",
    ),
)

CASES: tuple[Case, ...] = (*TYPES, *UNIONS, *ENDS, *CONFLICTS, *NEIGHBOURS)
