"""`romana-ovs diff`: what opens and closes, and what it costs each node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.cli.diff import keep_port_numbers
from romana_ovs.cli.main import main
from romana_ovs.cli.workloads import display_names
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, PodKey
from tests.cli.manifest_folders import manifest, policy_to
from tests.support.api_objects import node, pod

PODS = (
    pod("x/a", ports="80/tcp", app="web"),
    pod("x/b", ports="80/tcp", app="db"),
    pod("x/c", ports="81/tcp", app="other"),
)
POLICY = policy_to("x/p", {"app": "db"}, {"app": "web"}, 80)


def _diff(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = main(["diff", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def _cost(**changes: int) -> dict[str, int]:
    return {"added": 0, "removed": 0, "changed": 0, **changes}


def _brief(answer: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {name: {key: cost[key] for key in ("added", "removed", "changed")} for name, cost in answer["nodes"].items()}


def test_nothing_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = manifest(tmp_path / "old", *PODS, POLICY), manifest(tmp_path / "new", POLICY, *reversed(PODS))
    code, answer = _diff(capsys, old, new)
    assert code == 0
    assert (answer["opened"], answer["closed"], answer["ports"]) == ([], [], ["80/tcp", "81/tcp"])
    assert _brief(answer) == {"node1": _cost(), "node2": _cost()}
    assert main(["diff", str(old), str(new)]) == 0
    assert capsys.readouterr().out.startswith("Nothing differs")


def test_a_new_policy_closes_what_it_does_not_allow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = manifest(tmp_path / "old", *PODS), manifest(tmp_path / "new", *PODS, POLICY)
    code, answer = _diff(capsys, old, new)
    assert code == 1
    assert answer["opened"] == []
    assert answer["closed"] == [
        {"from": "x/a", "to": "x/b", "port": "81/tcp"},
        {"from": "x/c", "to": "x/b", "port": "80/tcp"},
        {"from": "x/c", "to": "x/b", "port": "81/tcp"},
    ]
    brief = _brief(answer)
    assert brief["node2"]["added"] > 0, "the pod that the policy selects is there"
    cost = answer["nodes"]["node2"]
    assert cost["after"] - cost["before"] == cost["added"] - cost["removed"]


def test_text_equals_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = manifest(tmp_path / "old", *PODS, POLICY), manifest(tmp_path / "new", *PODS)
    assert main(["diff", str(old), str(new), "--ports", "80/tcp"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "opens  x/c -> x/b  80/tcp"
    assert lines[-2].startswith("node1: ") and lines[-1].startswith("node2: ")


def test_ports_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = manifest(tmp_path / "old", *PODS), manifest(tmp_path / "new", *PODS, POLICY)
    _, answer = _diff(capsys, old, new, "--ports", "9/udp")
    assert answer["ports"] == ["9/udp"]
    assert {path["port"] for path in answer["closed"]} == {"9/udp"}


def test_a_new_pod_changes_its_own_node_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pods that stay keep node, address and port, though the new one's name sorts before theirs."""
    old, new = (
        manifest(tmp_path / "old", *PODS, POLICY),
        manifest(tmp_path / "new", pod("x/a0", ports="80/tcp", app="web"), *PODS, POLICY),
    )
    code, answer = _diff(capsys, old, new)
    assert code == 1
    brief = _brief(answer)
    assert brief["node1"] == _cost(), "an allowed class that was there already sends other nodes nothing"
    assert brief["node2"]["removed"] == 0 and brief["node2"]["added"] > 0
    assert {path["from"] for path in answer["opened"]} | {path["to"] for path in answer["opened"]} >= {"x/a0"}


def test_a_new_node_has_all_flows_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = (node("n1"), node("n2"))
    old, new = manifest(tmp_path / "old", nodes[0], *PODS), manifest(tmp_path / "new", *nodes, *PODS)
    code, answer = _diff(capsys, old, new)
    assert code == 1
    assert (answer["opened"], answer["closed"]) == ([], [])
    cost = answer["nodes"]["n2"]
    assert cost["before"] == 0 and cost["added"] == cost["after"] > 0


def test_an_invalid_edit_keeps_the_last_valid_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {**POLICY, "spec": {"podSelector": {"matchLabels": "nonsense"}}}
    old, new = manifest(tmp_path / "old", *PODS, POLICY), manifest(tmp_path / "new", *PODS, broken)
    assert main(["diff", str(old), str(new)]) == 0
    assert "warning: " in capsys.readouterr().err


def test_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = manifest(tmp_path / "old", *PODS)
    new = manifest(tmp_path / "new", *PODS, settings="isolation = tier")
    assert main(["diff", str(old), str(new)]) == 2
    assert "settings differ" in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new").mkdir()
    assert main(["diff", str(manifest(tmp_path / "old", *PODS)), str(tmp_path / "new")]) == 2
    assert "holds no Kubernetes objects" in capsys.readouterr().err


def test_ports_of_pods_and_links_that_stay_do_not_change() -> None:
    keys = [PodKey(f"x/{name}") for name in "abc"]
    before = {"n": BridgeFacts("n", {keys[1]: PodPort(1), keys[2]: PodPort(2)}, links={"m": 0x7000})}
    after = {
        "k": BridgeFacts("k", {}),
        "n": BridgeFacts(
            "n", {key: PodPort(number) for number, key in enumerate(keys[:2], 1)}, links={"k": 0x7000, "m": 0x7001}
        ),
    }
    found = keep_port_numbers(before, after)
    assert {key: port.ofport for key, port in found["n"].pod_ports.items()} == {keys[0]: 3, keys[1]: 1}
    assert found["n"].links == {"k": 0x7001, "m": 0x7000}
    assert found["k"] is after["k"]


def test_replicas_are_one_line_unless_all_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    webs = tuple(pod(f"x/web-{number}", ports="80/tcp", app="web") for number in range(3))
    old, new = manifest(tmp_path / "old", *webs, *PODS[1:]), manifest(tmp_path / "new", *webs, *PODS[1:], POLICY)
    words = ["diff", str(old), str(new), "--ports", "80/tcp,81/tcp"]
    assert main(words) == 1
    assert capsys.readouterr().out.splitlines()[:3] == [
        "closes  x/c -> x/b  80/tcp, 81/tcp  (2 paths)",
        "closes  x/web-* (3 pods) -> x/b  81/tcp  (3 paths)",
        "0 paths open and 5 close; --all lists each.",
    ]
    assert main([*words, "--all"]) == 1
    assert capsys.readouterr().out.splitlines()[:5] == [
        "closes  x/c -> x/b  80/tcp",
        "closes  x/c -> x/b  81/tcp",
        *(f"closes  x/web-{number} -> x/b  81/tcp" for number in range(3)),
    ]


def test_replicas_of_one_prefix_are_named_by_their_first_pod() -> None:
    """Else two workloads would be one line."""
    named = {"web-1": "a", "web-2": "b", "web-3": "a", "web-4": "b", "db-0": "c", "db-1": "c", "x": "d"}
    pods = {PodKey(f"x/{name}"): _labelled(name, app) for name, app in named.items()}
    names = display_names(Cluster(pods=pods))
    assert {str(key): name for key, name in names.items()} == {
        "x/web-1": "x/web-1 and 1 with equal labels",
        "x/web-3": "x/web-1 and 1 with equal labels",
        "x/web-2": "x/web-2 and 1 with equal labels",
        "x/web-4": "x/web-2 and 1 with equal labels",
        "x/db-0": "x/db-* (2 pods)",
        "x/db-1": "x/db-* (2 pods)",
        "x/x": "x/x",
    }


def _labelled(name: str, app: str) -> Pod:
    return Pod(namespace="x", name=name, labels=Labels({"app": app, "pod-template-hash": name}))


def test_unrendered_sources_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = manifest(tmp_path / "old", *PODS), manifest(tmp_path / "new", *PODS)
    kind = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    (new / "kustomization.yaml").write_text(f"{kind}namespace: other\nresources: [all.json]\n")
    assert main(["diff", str(old), str(new), "--json"]) == 0
    printed = capsys.readouterr()
    (problem,) = json.loads(printed.out)["problems"]
    assert problem["file"] == "kustomization.yaml" and f"kubectl kustomize {new}" in problem["problem"]
    assert "is a kustomization and is read without namespace" in printed.err
    assert main(["diff", str(old), str(new), "--strict"]) == 1
