"""`romana-ovs check`: every problem in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from romana_ovs.cli.main import main

ROOT = Path(__file__).parent.parent.parent
POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  labels: {}\nspec: {{containers: [{{name: c}}]}}\n"
BAD = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
  podSelector: {}
  ingress:
  - from: [{ipBlock: {cidr: nowhere}}]
    ports: [{port: 0}]
"""


def rows(capsys: pytest.CaptureFixture[str], folder: Path, code: int) -> list[dict[str, object]]:
    assert main(["check", str(folder), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


def test_the_demonstration_has_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    (note,) = rows(capsys, ROOT / "etc" / "demo", 0)
    assert (note["file"], note["severity"]) == ("policy", "info")
    assert note["problem"] == "is a sub-folder with 2 manifests, which are not read without -R"
    assert rows(capsys, ROOT / "etc" / "demo" / "policy", 0) == []
    assert main(["check", str(ROOT / "etc" / "demo")]) == 0
    assert "5 pods" in capsys.readouterr().out


SCTP = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: sigtran}
spec:
  podSelector: {}
  ingress:
  - ports: [{port: 2905, protocol: SCTP}, {port: 80}]
"""


def test_open_sctp_ports_are_a_note_and_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(SCTP)
    assert rows(capsys, tmp_path, 0) == []
    assert main(["check", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("No problems")
    assert told.err.startswith("Policies name SCTP: default/sigtran. Where a switch tracks it by addresses alone")
    (tmp_path / "a.yaml").write_text(SCTP.replace("SCTP", "UDP"))
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def test_every_problem_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(POD.format("a", "{}") + "---" + BAD)
    (tmp_path / "b.yaml").write_text("\t[")
    found = rows(capsys, tmp_path, 1)
    assert found[0] == {
        "file": "a.yaml",
        "document": 2,
        "kind": "NetworkPolicy",
        "name": "p",
        "field": "spec.ingress[0].from[0].ipBlock.cidr",
        "problem": '"nowhere" is not a CIDR such as 10.1.0.0/16',
        "severity": "error",
    }
    assert [row["file"] for row in found] == ["a.yaml", "a.yaml", "b.yaml"]


def test_the_whole_folder_of_broken_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, ROOT / "tests" / "broken", 1)
    files = {path.name for path in (ROOT / "tests" / "broken").iterdir()}
    assert files - {row["file"] for row in found} <= {"pod-node-missing.yaml", "demo-no-tenant.yaml"}


def test_the_table_fits_into_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = '"' + "x" * 70 + '[red]"'
    long = BAD.replace("{name: p}", f"{{name: {name}, namespace: 'y'}}").replace("port: 0", 'port: "\\e[31m"')
    (tmp_path / "a-file-with-quite-a-long-name.yaml").write_text(BAD + "---" + long)
    assert main(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "spec.ingress[0].from[0].ip" in out
    assert "\x1b" not in out
    assert "problems" in out


@pytest.mark.parametrize(
    ("source", "missing"), [("pod-label:owner", "label owner"), ("namespace-label:team", "label team of its namespace")]
)
def test_pods_without_a_tenant_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, missing: str
) -> None:
    (tmp_path / "romana.conf").write_text(f"[romana]\ntenant_source = {source}\n")
    (tmp_path / "a.yaml").write_text(POD.format("a", "{owner: t1}") + "---\n" + POD.format("b", "{}"))
    (tmp_path / "c.yaml").write_text(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---\napiVersion: apps/v1\nkind: ReplicaSet\n"
        "metadata: {name: r}\nspec:\n  replicas: 3\n  selector: {matchLabels: {a: b}}\n"
        "  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c}]}}\n"
    )
    found = rows(capsys, tmp_path, 1)
    expected = [("b", "metadata.labels"), ("r", "spec.template.metadata.labels")]
    if source.startswith("namespace"):
        expected.insert(0, ("a", "metadata.labels"))
    assert [(row["name"], row["field"]) for row in found] == expected
    assert all(missing in str(row["problem"]) for row in found)


def test_an_address_of_two_pods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = "status: {phase: Running, podIP: 10.1.0.1}\n"
    (tmp_path / "a.yaml").write_text(
        POD.format("a", "{}")
        + status
        + "---\n"
        + POD.format("b", "{}")
        + status
        + "---\n"
        + POD.format("done", "{}")
        + status.replace("Running", "Succeeded")
    )
    (row,) = rows(capsys, tmp_path, 1)
    assert (row["name"], row["problem"]) == ("b", "10.1.0.1 is the address of pod default/a too")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1", "127.0.0.1 is a loopback address, which no pod and no node can have"),
        ("224.0.0.1", "224.0.0.1 is a multicast address, which no pod and no node can have"),
        ("10.0.0.0", "10.0.0.0 is the first address of the network 10.0.0.0/8, which no pod and no node can have"),
        ("172.16.0.2", "address 172.16.0.2 is that of a node"),
        ("10.0.0.1", "address 10.0.0.1 is that of node n1 on its own bridge"),
        ("10.0.0.65", "address 10.0.0.65 is that of node n2 on its own bridge"),
    ],
)
def test_an_address_that_no_pod_may_have(
    address: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = f"status: {{phase: Running, podIP: {address}}}\n"
    node = (
        "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {}}}, "
        "status: {{addresses: [{{type: InternalIP, address: {}}}]}}}}\n"
    )
    (tmp_path / "nodes.yaml").write_text(node.format("n1", "172.16.0.1") + node.format("n2", "172.16.0.2"))
    on_host = POD.format("host", "{}").replace("spec: {", "spec: {hostNetwork: true, nodeName: n2, ")
    (tmp_path / "a.yaml").write_text("---\n".join([POD.format("a", "{}") + status, on_host + status]))
    row, left_out = rows(capsys, tmp_path, 1)
    assert (row["file"], row["kind"], row["name"], row["problem"]) == ("a.yaml", "Pod", "a", problem)
    assert left_out["severity"] == "info"


def test_pods_without_a_free_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = "[romana]\nnetwork = 10.0.0.0/27\nsegment_bits = 2\nhost_bits = 1\nendpoint_bits = 2\n"
    (tmp_path / "romana.conf").write_text(settings)
    (tmp_path / "a.yaml").write_text("---\n".join(POD.format(name, "{}") for name in "abc"))
    assert rows(capsys, tmp_path, 0) == []
    nodes = (f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: '{name}'}}\n" for name in "xyz")
    (tmp_path / "nodes.yaml").write_text("".join(nodes))
    node, pod = rows(capsys, tmp_path, 1)
    assert (node["kind"], node["name"]) == ("Node", "z")
    assert (pod["file"], pod["document"], pod["kind"], pod["name"]) == ("a.yaml", 3, "Pod", "c")
    assert pod["problem"] == node["problem"] == "node z gets no host number: all 2**1 = 2 (host_bits 1) are in use"
    (tmp_path / "romana.conf").write_text(settings.replace("/27", "/28"))
    assert main(["check", str(tmp_path)]) == 2
    assert "network 10.0.0.0/28 leaves 32 - 28 = 4 bits" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["matrix"],
        ["verdict", "--from", "a/b", "--to", "a/c", "--port", "80"],
        ["flows", "--node", "node1"],
    ],
)
def test_a_missing_state_file_is_an_error_of_every_reader(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(POD.format("a", "{}"))
    assert main([*words, str(tmp_path), "--state", str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err == f"romana-ovs: {tmp_path / 'missing'}: there is no state file\n"


def test_kinds_without_effect_are_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n---\n" * 2 + POD.format("a", "{}"))
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("ConfigMap") == 1


def test_strict_makes_notes_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(POD.format("a", "{}"))
    commands = (["check"], ["matrix"], ["ipam"], ["flows", "--node", "node1"], ["diff", str(tmp_path)])
    for words in commands:
        assert main([*words, str(tmp_path), "--strict"]) == 0
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n")
    for words in commands:
        assert main([*words, str(tmp_path)]) == 0
        assert main([*words, str(tmp_path), "--strict"]) == 1
    capsys.readouterr()
    assert main(["check", str(tmp_path), "--strict", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["problem"], row["severity"]) == ("Ignored kinds: ConfigMap.", "info")


def test_unusable_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([str(tmp_path)], [str(tmp_path / "missing")], [], [str(tmp_path), "--nodes", "0"]):
        assert main(["check", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("romana-ovs: ") and captured.err.count("\n") == 1
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
    assert main(["check", str(tmp_path), "--nodes", "2"]) == 2
    assert "Node objects" in capsys.readouterr().err
    (tmp_path / "romana.conf").write_text("[romana]\nisolation = x\n")
    assert main(["check", str(tmp_path)]) == 2
    assert "romana.conf: [romana] isolation" in capsys.readouterr().err


def test_a_kustomization_without_kind_is_named_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [pods.yaml]\n")
    (tmp_path / "pods.yaml").write_text(POD.format("x", "{}"))
    assert main(["check", str(tmp_path), "--json"]) == 1
    problems = [entry["problem"] for entry in json.loads(capsys.readouterr().out)]
    assert any("kubectl kustomize" in problem for problem in problems) and "is required" in "".join(problems)


def test_a_note_hides_no_missing_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "romana.conf").write_text(
        "[romana]\nnetwork = 10.0.0.0/27\nsegment_bits = 2\nhost_bits = 1\nendpoint_bits = 2\n"
    )
    (tmp_path / "a.yaml").write_text(
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: web}\nspec:\n  replicas: 40\n"
        "  selector: {matchLabels: {app: web}}\n"
        "  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}\n"
    )
    found = rows(capsys, tmp_path, 1)
    assert {str(row["severity"]) for row in found} == {"info", "error"}
    assert {row["name"] for row in found} == {"web"}


def test_pods_that_are_left_out_are_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(POD.format("a", "{}").replace("spec: {", "spec: {hostNetwork: true, "))
    (row,) = rows(capsys, tmp_path, 0)
    assert row["severity"] == "info" and "1 pod is left out (default/a)" in str(row["problem"])


KUSTOMIZATION = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"


def test_a_resource_with_a_long_name_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(POD.format("a", "{}"))
    (tmp_path / "kustomization.yaml").write_text(f"{KUSTOMIZATION}resources: [a.yaml, {'x' * 300}.yaml]\n")
    for options in ([], ["-R"]):
        assert main(["check", str(tmp_path), "--json", *options]) == 1
        (row,) = json.loads(capsys.readouterr().out)
        assert row["file"] == "kustomization.yaml" and "is read without resources xxx" in row["problem"]
