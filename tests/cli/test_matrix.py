"""`romana-ovs matrix DIR` as one runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from romana_ovs.cli.main import main
from tests.support.api_objects import as_yaml, pod
from tests.support.command import COMMAND

POLICY = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  podSelector: {matchLabels: {tier: db}}
  ingress: [{from: [{podSelector: {matchLabels: {tier: web}}}], ports: [{port: 5432}]}]
"""
BLOCKED = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: block, namespace: a}
spec:
  podSelector: {matchLabels: {tier: db}}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pods of namespace a, one of b, and a policy about a's database."""
    pods = (
        pod("a/web", ports="80/tcp", tier="web"),
        pod("a/db", ports="5432/tcp", tier="db"),
        pod("b/web", ports="80/tcp", tier="web"),
    )
    (tmp_path / "all.yaml").write_text(as_yaml(*pods) + POLICY)
    return tmp_path


def test_json_has_the_requested_ports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", str(folder), "--ports", "5432/tcp,5432/udp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "pods": ["a/db", "a/web", "b/web"],
        "ports": ["5432/tcp", "5432/udp"],
        "allowed": {
            "5432/tcp": [["a/db", "a/web"], ["a/web", "a/db"]],
            "5432/udp": [["a/db", "a/web"]],
        },
    }


def test_without_ports_it_is_those_of_the_containers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ports"] == ["80/tcp", "5432/tcp"]
    assert sorted(found["allowed"]) == ["5432/tcp", "80/tcp"]


def test_text_is_a_drawing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "80/tcp" in lines and "5432/tcp" in lines
    place = lines.index("5432/tcp")
    assert lines[place + 1].split() == ["from", "\\", "to", "a/db", "a/web", "b/web"]
    assert lines[place + 3].split() == ["a/web", "●", "·"]


def test_without_declared_ports_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.yaml").write_text(as_yaml(pod("a/web", tier="web")))
    assert main(["matrix", str(tmp_path)]) == 0
    assert "--ports" in capsys.readouterr().out
    assert main(["matrix", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pods": ["a/web"], "ports": [], "allowed": {}}


def test_ip_blocks_see_the_addresses_that_pods_will_get(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "block.yaml").write_text(BLOCKED)
    assert main(["matrix", str(folder), "--ports", "80/tcp", "--json"]) == 0
    assert ["a/web", "a/db"] in json.loads(capsys.readouterr().out)["allowed"]["80/tcp"]
    (folder / "romana.conf").write_text("[romana]\nnetwork = 172.20.0.0/14\nsegment_bits = 6\n")
    assert main(["matrix", str(folder), "--ports", "80/tcp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["allowed"]["80/tcp"] == [["a/db", "a/web"]]


@pytest.mark.parametrize("ports", ["80/tcp,http", "", ",", "0"])
def test_bad_ports_are_refused(folder: Path, ports: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", str(folder), "--ports", ports]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--ports: " in captured.err


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_fifty_pods_take_less_than_a_second(tmp_path: Path, form: list[str]) -> None:
    """Start-up included; processor time, so that a busy machine does not decide."""
    pods = (pod(f"t{each % 5}/p{each}", ports="80/tcp 443/tcp", tier=f"tier{each % 3}") for each in range(50))
    (tmp_path / "all.yaml").write_text(as_yaml(*pods) + POLICY + BLOCKED)
    process = subprocess.Popen([*COMMAND, "matrix", str(tmp_path), *form], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_utime + usage.ru_stime < 1.0
