"""The demonstration, as a user runs it: every step measured with real connections.

What it draws, and `--keep`, are an example of docs/cli.md, which tests/repository/test_docs_cli.py runs.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from romana_ovs.cli.main import main
from romana_ovs_emulate.cli import demo
from romana_ovs_emulate.datapath import kernel_has_openvswitch
from romana_ovs_emulate.patience import patience
from tests.support.command import run_command
from tests.support.datapath import datapath_type

pytestmark = pytest.mark.root

FRONTEND, BACKEND = "default/nginx-frontend", "default/nginx-backend"
PATH = {"from": FRONTEND, "to": BACKEND, "port": "80/tcp"}


def play(*options: str) -> subprocess.CompletedProcess[str]:
    return run_command("demo", *options, seconds=120)


@pytest.mark.parametrize("options", [(), ("--fabric", "vxlan"), ("--nodes", "2", "--fabric", "geneve")])
def test_every_step_is_measured_as_the_seed_tells_it(options: tuple[str, ...]) -> None:
    done = play("--json", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["datapath"] == datapath_type().value
    assert f"datapath {datapath_type().value} ..." in done.stderr
    steps = {step["name"][0]: step for step in result["steps"]}
    assert list(steps) == ["a", "b", "c", "d"]
    pods = steps["a"]["matrix"]["pods"]
    replicas = [pod for pod in pods if "nginx-default" in pod]
    assert len(pods) == 5
    assert len(replicas) == 3
    inside = sorted([one, two] for one in replicas for two in replicas if one != two)
    for letter, step in steps.items():
        for port, pairs in step["matrix"]["allowed"].items():
            opened = [[FRONTEND, BACKEND]] if (letter, port) == ("c", "80/tcp") else []
            assert pairs == sorted(inside + opened), (letter, port)
    assert steps["b"]["opened"] == steps["b"]["closed"] == []
    assert (steps["c"]["opened"], steps["c"]["closed"]) == ([PATH], [])
    assert (steps["d"]["opened"], steps["d"]["closed"]) == ([], [PATH])
    figures = result["figures"]
    assert figures["packets_to_controller"] == 0
    assert max(figures["cut_milliseconds"].values()) < patience(1000.0)
    assert all(kinds["total"] > 0 for kinds in figures["flows"].values())
    assert figures["applied_milliseconds"] > 0


@pytest.mark.skipif(kernel_has_openvswitch(), reason="this kernel has the module")
def test_system_without_the_module_is_one_sentence() -> None:
    done = play("--datapath", "system")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("romana-ovs:")]
    assert "needs the kernel's module openvswitch" in line and "use the datapath netdev" in line


def test_a_wrong_verdict_is_named_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "POLICY_PORT", "81/tcp")
    assert main(["demo", "--datapath", datapath_type().value]) == 1
    said = capsys.readouterr()
    assert f"should be {FRONTEND} -> {BACKEND} 81/tcp" in said.out
    assert "WRONG: step c" in said.err
