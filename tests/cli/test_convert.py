"""`romana-ovs convert`: objects of the demonstration in their current form."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.cli.convert import to_current
from romana_ovs.cli.main import main
from romana_ovs.kube.decode.decoder import decode
from romana_ovs.kube.decode.objects import Document
from romana_ovs.model.settings import Settings

POLICY = Path(__file__).parent.parent.parent / "etc" / "demo" / "policy"

WANTED = {
    "apiVersion": "romana.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "policy1", "namespace": "default", "labels": {"owner": "t1"}},
    "spec": {
        "podSelector": {"matchLabels": {"tier": "backend"}},
        "allowIncoming": [
            {
                "toPorts": [{"port": 80, "protocol": "TCP"}],
                "from": [{"pods": {"matchLabels": {"tier": "frontend"}}}],
            }
        ],
    },
}

# The seed's own text, with the one line indented that no YAML parser can take as it is.
SEED = """
kind: NetworkPolicy
apiVersion: romana.io/demo/v1
metadata:
 name: policy1
 namespace: default
 labels:
 - owner: t1
 spec:
  podSelector:\t\t// Standard label selector - selects pods.
   tier: backend
 allowIncoming:\t\t// (Optional) List of allow rules.
  - toPorts:\t\t// (Optional) List of dest ports to open.
  - port: 80\t\t// (Optional) Numeric or named port
    protocol: TCP\t// [ TCP | UDP]
 from:\t\t\t// (Optional) List of sources.
  - pods:\t\t// (Optional) Standard label selector.
    tier: frontend\t// (Optional) Standard label selector.
"""

HEAD = "kind: NetworkPolicy\napiVersion: romana.io/demo/v1\n"
META = "metadata: {name: policy1, namespace: default, labels: [{owner: t1}]}\n"
FORMS = {
    "seed": SEED,
    "beside": HEAD + META + "spec: {podSelector: {tier: backend}}\n"
    "allowIncoming:\n- toPorts:\n  port: 80\n  protocol: TCP\n  from:\n  - pods:\n    tier: frontend\n",
    "protocol left of its port": HEAD + META + "spec: {podSelector: {tier: backend}}\n"
    "allowIncoming:\n- toPorts:\n  - port: 80\n  protocol: TCP\n  from:\n  - pods: {tier: frontend}\n",
    "one port, one source": HEAD + META + "spec:\n  podSelector: [{tier: backend}]\n"
    "  allowIncoming: {toPorts: {port: 80, protocol: TCP}, from: {pods: [{tier: frontend}]}}\n",
}


def convert(capsys: pytest.CaptureFixture[str], path: Path | str, code: int = 0) -> list[object]:
    assert main(["convert", str(path)]) == code
    return list(yaml.safe_load_all(capsys.readouterr().out))


def test_the_policy_of_the_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(capsys, POLICY / "policy1.yaml") == [WANTED]


@pytest.mark.parametrize("name", FORMS)
def test_mistakes_of_the_first_publication_are_corrected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "a.yaml").write_text(FORMS[name])
    assert convert(capsys, tmp_path / "a.yaml") == [WANTED]


def test_the_output_passes_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, source in enumerate([POLICY / "policy1.yaml", POLICY / "third-party-resource.yaml"]):
        assert main(["convert", str(source)]) == 0
        (tmp_path / f"{index}.yaml").write_text(capsys.readouterr().out)
    (tmp_path / "romana.conf").write_text("[romana]\ntenant_source = pod-label:owner\n")
    assert main(["check", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_third_party_resource_becomes_a_definition(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = convert(capsys, POLICY / "third-party-resource.yaml")
    assert isinstance(found, dict)
    assert (found["kind"], found["metadata"]) == ("CustomResourceDefinition", {"name": "networkpolicies.romana.io"})
    spec = found["spec"]
    assert (spec["group"], spec["scope"], spec["names"]["kind"]) == ("romana.io", "Namespaced", "NetworkPolicy")
    assert found["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    (version,) = spec["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1", True, True)
    unstructured = list(untyped(version["schema"]["openAPIV3Schema"]))
    assert unstructured == []


def untyped(schema: dict[str, object], path: str = "") -> list[str]:
    """The paths in a schema that a structural one may not have: a field without a type."""
    found = [] if "type" in schema or schema.get("x-kubernetes-int-or-string") else [path]
    for name, inner in dict(schema.get("properties") or {}).items():  # type: ignore[call-overload]
        found += untyped(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += untyped(schema[key], f"{path}.{key}")  # type: ignore[arg-type]
    return found


def test_other_objects_pass_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    documents: list[object] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "a"},
            "data": {"on": "yes", "day": "2024-01-01"},
        },
        WANTED,
        {"apiVersion": "v1", "kind": "List", "items": [service, WANTED]},
        {
            "apiVersion": "extensions/v1beta1",
            "kind": "ThirdPartyResource",
            "metadata": {"name": "cron-tab.example.com"},
        },
    ]
    text = yaml.safe_dump_all(documents, sort_keys=False)
    (tmp_path / "a.yaml").write_text(text)
    assert convert(capsys, tmp_path / "a.yaml") == documents
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert convert(capsys, "-") == documents
    (tmp_path / "a.json").write_text(json.dumps(documents[0]) + json.dumps(documents[1]))
    assert main(["convert", str(tmp_path / "a.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"apiVersion": "v1", "kind": "List", "items": documents[:2]}


def test_lists_are_converted_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = yaml.safe_load((POLICY / "policy1.yaml").read_text())
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [old, old]}))
    assert convert(capsys, tmp_path / "a.yaml") == [{"apiVersion": "v1", "kind": "List", "items": [WANTED, WANTED]}]


def test_remaining_problems_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = HEAD + META + "spec: {podSelector: {}}\nallowIncoming: [{toPorts: [{port: 99999}]}]\n"
    (tmp_path / "a.yaml").write_text(text)
    assert main(["convert", str(tmp_path / "a.yaml")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: a.yaml, document 1: NetworkPolicy policy1: spec.allowIncoming[0].toPorts")
    assert yaml.safe_load(captured.out)["apiVersion"] == "romana.io/v1"


def test_duplicate_fields_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + META + "spec: {podSelector: {}, allowIncoming: []}\nallowIncoming: [{}]\n")
    assert main(["convert", str(tmp_path / "a.yaml")]) == 1
    assert "allowIncoming: unknown field" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "\t[", HEAD + "spec: [ // x\n"])
def test_unusable_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert main(["convert", str(tmp_path / "a.yaml")]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.startswith("romana-ovs: a.yaml: ") or "document 1" in captured.err) == ("", True)
    assert main(["convert", str(tmp_path / "missing.yaml")]) == 2
    assert "No such file" in capsys.readouterr().err


LABELS = st.dictionaries(st.sampled_from(["a", "b", "tier"]), st.sampled_from(["x", "y", ""]), max_size=2)
LISTED = LABELS | LABELS.map(lambda labels: [{key: value} for key, value in labels.items()])
PORTS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"port": st.sampled_from([80, 443, "http"]), "protocol": st.sampled_from(["TCP", "UDP", "SCTP"])}
    ),
    max_size=2,
)
RULES = st.lists(
    st.fixed_dictionaries(
        {}, optional={"toPorts": PORTS, "from": st.lists(st.fixed_dictionaries({"pods": LISTED}), max_size=2)}
    ),
    max_size=3,
)


@given(labels=LISTED, selector=LISTED, rules=RULES | st.none(), beside=st.booleans())
def test_the_meaning_does_not_change(labels: object, selector: object, rules: object, beside: bool) -> None:
    spec: dict[str, object] = {"podSelector": selector}
    old: dict[str, object] = {
        "apiVersion": "romana.io/demo/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "labels": labels},
        "spec": spec,
    }
    (old if beside else spec)["allowIncoming"] = rules
    (before,) = decode(Document(1, old), "a.yaml", Settings()).objects
    (after,) = decode(Document(1, to_current(old)), "a.yaml", Settings()).objects
    assert before.problems == after.problems == ()
    assert before.value is not None
    assert before.value == after.value
