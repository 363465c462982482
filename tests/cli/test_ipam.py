"""`romana-ovs ipam`: the ranges as people and programs read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from romana_ovs.cli.main import main
from romana_ovs.state import StateFile
from tests.cli.manifest_folders import manifest
from tests.support.api_objects import node, pod

SMALL = "network = 10.9.0.0/24\nsegment_bits = 4\nhost_bits = 2\nendpoint_bits = 2"


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["ipam", *words]) == 0
    return capsys.readouterr().out


def test_text_has_ranges_use_and_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = manifest(
        tmp_path / "dir",
        pod("t1/a", tier="frontend"), pod("t1/b", tier="backend"), pod("t2/c"), pod("t2/d"),
    )  # fmt: skip
    assert shown(capsys, str(folder)) == (
        "10.0.0.0/8 = 12 segment bits, 6 host bits, 6 endpoint bits; 10.0.0.0/20 is for\n"
        "  the nodes themselves.\n"
        "\n"
        "tenant t1: 10.0.64.0/18; 2 of 4 segment indexes spare\n"
        "tier                        number   used    left  ranges\n"
        "backend                          4      1     127  10.0.64.0/20\n"
        "frontend                         5      1     127  10.0.80.0/20\n"
        "\n"
        "tenant t2: 10.0.128.0/18; 3 of 4 segment indexes spare\n"
        "tier                        number   used    left  ranges\n"
        "default                          8      2     126  10.0.128.0/20\n"
        "\n"
        "node                        number  pods  address\n"
        "node1                            0     2  10.0.0.1\n"
        "node2                            1     2  10.0.0.65\n"
        "\n"
        "Left: 4087 of 4095 segment indexes, 62 of 64 host numbers.\n"
    )


def test_nothing_is_wider_than_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "n" * 63
    foreign = pod(f"{long}/{'p' * 200}", tier="t" * 63) | {
        "status": {"phase": "Running", "podIP": "192.168.0.9", "podIPs": [{"ip": "192.168.0.9"}]}
    }
    crowd = [pod(f"{long}/p{number:02}", tier="t" * 63) for number in range(50)]
    folder = manifest(tmp_path / "dir", foreign, *crowd, node("x" * 250), settings=SMALL)
    text = shown(capsys, str(folder))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "192.168.0.9" in text and "x" * 80 in text


def test_json_has_every_documented_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = pod("t1/f") | {"status": {"phase": "Running", "podIP": "192.168.0.9"}}
    folder = manifest(tmp_path / "dir", *(pod(f"t1/p{number}") for number in range(5)), foreign, settings=SMALL)
    assert json.loads(shown(capsys, str(folder), "--nodes", "1", "--json")) == {
        "plan": {
            "network": "10.9.0.0/24", "segment_bits": 4, "host_bits": 2, "endpoint_bits": 2,
            "node_addresses": "10.9.0.0/28",
        },
        "tenants": [{
            "tenant": "t1",
            "ranges": ["10.9.0.16/28", "10.9.0.32/28"],
            "indexes": [1, 2],
            "spare_indexes": 0,
            "tiers": [{
                "tier": "default", "number": 1, "ranges": ["10.9.0.16/28", "10.9.0.32/28"], "indexes": [1, 2],
                "used": 5, "left": 3,
            }],
        }],
        "nodes": [{"node": "node1", "number": 0, "address": "10.9.0.1", "pods": 6}],
        "foreign": [{"pod": "t1/f", "node": "node1", "address": "192.168.0.9"}],
        "left": {"segment_indexes": 13, "host_numbers": 3},
        "problems": [],
    }  # fmt: skip


def test_a_plan_that_is_full_is_a_problem_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = manifest(tmp_path / "dir", *(pod(f"t1/p{number:02}") for number in range(61)), settings=SMALL)
    assert main(["ipam", str(folder), "--nodes", "1", "--json"]) == 1
    found = capsys.readouterr()
    (problem,) = json.loads(found.out)["problems"]
    assert (problem["kind"], problem["name"]) == ("Pod", "t1/p60")
    assert "15 * 2**2 = 60" in problem["problem"] and problem["problem"] in found.err


def test_an_impossible_plan_is_an_error_with_the_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = manifest(tmp_path / "dir", pod("x/a"), settings="host_bits = 7")
    assert main(["ipam", str(folder)]) == 2
    words = "leaves 32 - 8 = 24 bits, but segment_bits 12 + host_bits 7 + endpoint_bits 6 = 25"
    assert words in capsys.readouterr().err


def test_a_state_file_is_created_once_and_keeps_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    folder = manifest(tmp_path / "dir", pod("zz/a"))
    before = shown(capsys, str(folder), "--state", str(state))
    saved = state.read_bytes()
    assert (StateFile(state).load() or {})["format"] == 1
    manifest(folder, pod("zz/a"), pod("aa/b"))
    after = shown(capsys, str(folder), "--state", str(state))
    assert "tenant zz: 10.0.64.0/18" in before and "tenant zz: 10.0.64.0/18" in after
    assert "tenant aa: 10.0.128.0/18" in after
    assert "tenant aa: 10.0.64.0/18" in shown(capsys, str(folder))
    assert state.read_bytes() == saved


def test_a_damaged_state_file_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    state.write_text("numbers")
    assert main(["ipam", str(manifest(tmp_path / "dir", pod("x/a"))), "--state", str(state)]) == 2
    assert str(state) in capsys.readouterr().err


def test_pods_are_listed_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = manifest(tmp_path / "dir", pod("t1/a", tier="frontend"), pod(f"t1/{'b' * 40}", tier="backend"))
    text = shown(capsys, str(folder), "--pods")
    assert "pod                         address          node\n" in text
    assert "t1/a                        10.0.80.0        node1\n" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    listed = json.loads(shown(capsys, str(folder), "--pods", "--json"))["pods"]
    assert listed[0] == {"pod": "t1/a", "node": "node1", "address": "10.0.80.0", "mac": "0a:58:0a:00:50:00"}
    assert "pods" not in json.loads(shown(capsys, str(folder), "--json"))
