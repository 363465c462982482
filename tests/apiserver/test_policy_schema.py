"""What the API server takes as a policy of romana.io, compared with what our decoder reads.

The schema is the first line, the decoder the second. Nothing that the server takes and changes may mean more after.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from romana_ovs.cli.main import main
from romana_ovs.kube.decode.decoder import decode
from romana_ovs.kube.decode.objects import DecodedObject, Document
from romana_ovs.model.labels import EVERYTHING, NO_LABELS
from romana_ovs.model.objects import RomanaPolicy
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.api_objects import Object, romana_policy
from tests.support.hypothesis_profiles import PROFILE, examples
from tests.support.raw_client import Client, Refused

ROOT = Path(__file__).parents[2]
WRITTEN = [
    path
    for folder in ("docs/examples", "etc/demo", "tests/integration/scenarios")
    for path in sorted((ROOT / folder).rglob("*.yaml"))
    if re.search(r"^apiVersion: romana.io/.*\nkind: NetworkPolicy", path.read_text(), re.MULTILINE)
]
POLICIES = "/apis/romana.io/v1/namespaces/default/networkpolicies"
WEB = {"matchLabels": {"tier": "web"}}
LONG = "x" * 64


def allowing(*rules: object) -> Object:
    """The spec that selects every pod and has these rules."""
    return {"podSelector": {}, "allowIncoming": list(rules)}


def to_port(port: object) -> Object:
    return allowing({"toPorts": [port]})


def expressing(**expression: object) -> Object:
    return {"podSelector": {"matchExpressions": [expression]}}


PORT_80 = [{"port": 80}]
FROM_WEB = [{"pods": WEB}]
ACCEPTED: Mapping[str, Object] = {
    "nothing is allowed": {"podSelector": {}},
    "no rules": {"podSelector": WEB, "allowIncoming": []},
    "everything": allowing({}),
    "the demonstration's": allowing({"toPorts": [{"port": 80, "protocol": "TCP"}], "from": FROM_WEB}),
    "a protocol": to_port({"protocol": "SCTP"}),
    "a port by its name": to_port({"port": "http-1"}),
    "values": expressing(key="a.b/tier", operator="In", values=["web", ""]),
    "a label": expressing(key="x", operator="Exists"),
    "no label": expressing(key="y", operator="DoesNotExist", values=[]),
    "both": {"podSelector": {**WEB, "matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["y"]}]}},
}
REFUSED: Mapping[str, tuple[Object, str]] = {
    "a rule's from is misspelt": (allowing({"form": FROM_WEB}), r"spec.allowIncoming\[0\].* at most 0"),
    "from is misspelt beside toPorts": (allowing({"toPorts": PORT_80, "From": []}), r"allowIncoming\[0\].* at most"),
    "toPorts is misspelt": (allowing({"ports": PORT_80, "from": FROM_WEB}), r"allowIncoming\[0\].* at most"),
    "one field too many": (allowing({"toPorts": PORT_80, "from": FROM_WEB, "to": []}), r"allowIncoming\[0\].* at most"),
    "a port's number is misspelt": (to_port({"prt": 80}), r"toPorts\[0\].* at most 1"),
    "endPort": (to_port({"port": 80, "endPort": 90}), r"toPorts\[0\].* at most"),
    "a source has two selectors": (allowing({"from": [{"pods": WEB, "namespaceSelector": {}}]}), "at most 1"),
    "plain labels": ({"podSelector": {"tier": "web"}}, "spec.podSelector.* at most 0"),
    "matchLabels is misspelt": (allowing({"from": [{"pods": {"matchLabel": {"a": "b"}}}]}), "pods.* at most 0"),
    "allowIncoming is misspelt": ({"podSelector": {}, "allowIncomming": [{}]}, "spec.* at most 1"),
    "podSelector is misspelt": ({"podSelectors": {}}, "spec.podSelector: Required"),
    "an expression's values are misspelt": (expressing(key="a", operator="Exists", value=[]), "at most 2"),
    "no source": (allowing({"from": [{}]}), "pods: Required"),
    "an empty list that reads like nobody and means everybody": (allowing({"from": []}), "at least 1"),
    "an empty list of ports": (allowing({"toPorts": []}), "at least 1"),
    "port 0": (to_port({"port": 0}), "must be a number from 1 to 65535"),
    "port 65536": (to_port({"port": 65536}), "must be a number from 1 to 65535"),
    "a quoted number": (to_port({"port": "80"}), "a number is written without quotes"),
    "a long port name": (to_port({"port": "a" * 16}), "may not be more than 15"),
    "a port name with two hyphens": (to_port({"port": "a--b"}), "or the name of a container port"),
    "protocol in lower case": (to_port({"protocol": "tcp"}), 'supported values: "TCP", "UDP", "SCTP"'),
    "In without values": (expressing(key="a", operator="In"), "In and NotIn need at least one value"),
    "Exists with values": (expressing(key="a", operator="Exists", values=["b"]), "Exists and DoesNotExist take none"),
    "an operator of its own": (expressing(key="a", operator="Is"), "supported values"),
    "a label key with a blank": ({"podSelector": {"matchLabels": {"a b": "c"}}}, "every key must be a label key"),
    "a long label key": ({"podSelector": {"matchLabels": {LONG: "c"}}}, "every key must be a label key"),
    "a long label value": ({"podSelector": {"matchLabels": {"a": LONG}}}, "may not be more than 63"),
    "a label without a value": ({"podSelector": {"matchLabels": {"tier": None}}}, "every label must have a value"),
    "labels without any": ({"podSelector": {"matchLabels": None}}, "spec.podSelector. must not validate"),
    "no expressions": ({"podSelector": {"matchExpressions": None}}, "spec.podSelector. must not validate"),
    "from with nothing behind it": (allowing({"from": None}), r"allowIncoming\[0\]. must not validate"),
    "ports with nothing behind it": (allowing({"toPorts": None, "from": FROM_WEB}), "must not validate"),
    "port with nothing behind it": (to_port({"port": None}), r"toPorts\[0\]. must not validate"),
    "too many rules": (allowing(*[{}] * 65), "must have at most 64"),
}


def offered(admin: Client, body: Object) -> Object | Refused:
    """What the server would store, unknown fields being nobody's error; nothing is stored."""
    try:
        return admin.request("POST", f"{POLICIES}?dryRun=All&fieldValidation=Ignore", body)
    except Refused as refused:
        assert refused.status in (400, 422), refused
        return refused


def decoded(body: Object) -> DecodedObject:
    """What our loader makes of an object, whenever it was made."""
    known = {key: value for key, value in body["metadata"].items() if key != "creationTimestamp"}
    (item,) = decode(Document(1, {**body, "metadata": known}), "server", Settings()).objects
    return item


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_right_is_taken_as_it_is(admin: Client, name: str) -> None:
    stored = offered(admin, romana_policy("p", ACCEPTED[name]))
    assert not isinstance(stored, Refused), stored
    read = decoded(stored)
    assert read.problems == ()
    assert read.value is not None
    assert read.value == decoded(romana_policy("p", ACCEPTED[name])).value


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_whoever_sends_it(admin: Client, name: str) -> None:
    spec, reason = REFUSED[name]
    found = offered(admin, romana_policy("p", spec))
    assert isinstance(found, Refused), found
    assert re.search(reason, found.message, re.DOTALL), found.message


def test_kubectl_says_what_it_does_not_know(admin: Client) -> None:
    body = romana_policy("p", {"podSelector": {}}) | {"allowIncoming": [{}]}
    with pytest.raises(Refused, match='strict decoding error: unknown field "allowIncoming"'):
        admin.request("POST", f"{POLICIES}?dryRun=All&fieldValidation=Strict", body)
    stored = offered(admin, body)
    assert not isinstance(stored, Refused)
    assert decoded(stored).value == RomanaPolicy("default", "p", NO_LABELS, EVERYTHING), "what was dropped counted"


def test_kubectl_shows_what_an_operator_asks(control_plane: ControlPlane, admin: Client, namespace: str) -> None:
    policies = f"/apis/romana.io/v1/namespaces/{namespace}/networkpolicies"
    admin.create(policies, romana_policy("p", {"podSelector": WEB}))
    condition = {"status": "True", "reason": "Applied", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    admin.patch(
        f"{policies}/p/status",
        {
            "status": {
                "observedGeneration": 1,
                "conditions": [
                    {**condition, "type": "Programmed", "message": "every switch follows it"},
                    {**condition, "type": "Invalid", "status": "False", "message": "it is valid"},
                ],
            }
        },
    )
    head, row = control_plane.kubectl("get", "networkpolicies.romana.io", "-n", namespace).splitlines()
    assert head.split() == ["NAME", "PODS", "PROGRAMMED", "INVALID", "AGE"]
    assert row.split()[:4] == ["p", '{"matchLabels":{"tier":"web"}}', "True", "False"]
    assert admin.get(f"{policies}/p")["metadata"]["generation"] == 1, "a status is no new generation"


# Random objects, most of them with something wrong.

RIGHT = 15
"""How many times as often as something wrong something right is drawn, so that many of the larger objects are right."""


def mostly(right: st.SearchStrategy[object], *wrong: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """`right`, seldom one of `wrong`.

    Composed, so that it prints as `mixed()`: hypothesis prints strategies whole, and these stand in each other seven
    deep. As a sample from a list with `right` in it many times, the outermost one took gigabytes.
    """
    choices = [*[right] * RIGHT * len(wrong), *wrong]

    @st.composite
    def mixed(draw: st.DrawFn) -> object:
        return draw(choices[draw(st.sampled_from(range(len(choices))))])

    return mixed()


def one(right: Iterable[object], wrong: Iterable[object]) -> st.SearchStrategy[object]:
    return mostly(st.sampled_from(list(right)), st.sampled_from(list(wrong)))


def record(
    known: Mapping[str, st.SearchStrategy[object]],
    *misspelt: str,
    needs: str = "",
) -> st.SearchStrategy[object]:
    """Objects with any of the known fields, sometimes one misspelt or `needs` missing, seldom something else."""
    optional = {name: values for name, values in known.items() if name != needs}
    right = st.fixed_dictionaries({needs: known[needs]} if needs else {}, optional=optional)
    strange = {name: st.one_of(JUNK, *known.values()) for name in misspelt}
    return mostly(right, st.fixed_dictionaries({}, optional={**known, **strange}), JUNK)


def listed(entries: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return mostly(st.lists(entries, min_size=1, max_size=2), st.just([]), JUNK)


def labels() -> st.SearchStrategy[object]:
    return mostly(st.dictionaries(KEYS, VALUES, max_size=2), JUNK)


JUNK: st.SearchStrategy[object] = st.sampled_from([None, True, 5, 1.5, "text", [], {}, [None], [[]], [{}], {"a": {}}])
KEYS = one(
    ["tier", "app", "a.b/c", "A_b", "x" * 63, "x" * 253 + "/a"],
    ["", "a b", "a/b/c", "-a", LONG, "x" * 254 + "/a", "a\n"],
)
VALUES = one(["web", "", "A.b_c", "x" * 63], ["a b", "-", "\u00e4", LONG, "a\n", None, 5, True])
EXPRESSION = mostly(
    st.one_of(
        st.fixed_dictionaries({"key": KEYS, "operator": st.sampled_from(["In", "NotIn"]), "values": listed(VALUES)}),
        st.fixed_dictionaries({"key": KEYS, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
    ),
    record(
        {"key": KEYS, "operator": st.sampled_from(["In", "NotIn", "Exists", "in", ""]), "values": listed(VALUES)},
        "value",
        "op",
    ),
)
SELECTOR = record({"matchLabels": labels(), "matchExpressions": listed(EXPRESSION)}, "matchLabel", "tier")
PORT = record(
    {
        "port": one([80, 1, 65535, "http", "a-1"], [0, -1, 65536, 2**40, "80", "a--b", "A", "", "x" * 16, 1.0, None]),
        "protocol": one(["TCP", "UDP", "SCTP"], ["tcp", "ICMP", "", None]),
    },
    "endPort",
    "prt",
)
SOURCE = record({"pods": SELECTOR}, "podSelector", needs="pods")
RULE = record({"toPorts": listed(PORT), "from": listed(SOURCE)}, "ports", "form")
SPEC = record({"podSelector": SELECTOR, "allowIncoming": listed(RULE)}, "podselector", "ingress", needs="podSelector")


def stricter(spec: object) -> bool:
    """Whether the server may refuse what the decoder takes: forms of manifests, and those that say less than they mean.

    These are null where nothing is meant, empty lists that mean everything, sources that name no pods, and one port
    without the list around it.
    """
    text = json.dumps(spec)
    return any(form in text for form in ("null", '"from": []', '"toPorts": []', "{}]", '[{}, {"', '"toPorts": {'))


@settings(max_examples=3000 if PROFILE == "long" else examples(300))
@given(SPEC)
def test_what_the_server_accepts_decodes_to_the_same_meaning(admin: Client, spec: object) -> None:
    """docs/hazards.md C13: also where the server drops what it does not know."""
    body = romana_policy("p", spec)
    stored, sent = offered(admin, body), decoded(body)
    if isinstance(stored, Refused):
        event("refused by both" if sent.value is None else "refused by the server alone")
        assert sent.value is None or stricter(spec), f"{stored} although it is {sent.value}"
        return
    event("taken")
    read = decoded(stored)
    assert read.value is not None, read.problems
    assert read.problems == ()
    assert sent.value is not None, f"{sent.problems}, but {stored['spec']}"
    assert read.value == sent.value


# What this project itself writes.


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_convert_writes_and_examples_have_is_taken(
    admin: Client,
    path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every policy of romana.io in this project's own manifests, in today's form."""
    assert main(["convert", str(path)]) == 0
    policies = [each for each in yaml.safe_load_all(capsys.readouterr().out) if each and _is_policy(each)]
    assert policies
    for written in policies:
        written["metadata"]["namespace"] = "default"  # Theirs are not there.
        stored = admin.request("POST", f"{POLICIES}?dryRun=All&fieldValidation=Strict", written)
        assert decoded(stored).value == decoded(written).value
        assert decoded(stored).value is not None


def _is_policy(written: Object) -> bool:
    return bool(written["kind"] == "NetworkPolicy" and written["apiVersion"].startswith("romana.io/"))
