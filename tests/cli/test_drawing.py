"""Matrices as they are drawn on a terminal of 80 columns."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from romana_ovs.cli.drawing import draw_matrix, group_names
from romana_ovs.model.connection import PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.matrix import Matrix, PodPath, reachability
from tests.support.builders import cluster, pod, pod_label

WEB = [PortRef.parse("80/tcp")]
A, B, C = PodKey("x/a"), PodKey("x/b"), PodKey("x/c")


def drawn(matrix: Matrix, *, encoding: str = "utf-8", terminal: bool = False, **more: Any) -> str:
    """What `draw_matrix` writes."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=file, width=80, force_terminal=terminal, color_system="standard" if terminal else None)
    draw_matrix(matrix, console=console, **more)
    return raw.getvalue().decode(encoding)


def many(count: int, spaces: int, *, name: str = "p", tiers: int = 2) -> Matrix:
    """`count` pods over `spaces` namespaces, each namespace a tenant."""
    found = cluster(
        *(pod(f"ns{i % spaces}/{name}{i}", tier=i // spaces % tiers) for i in range(count)), settings=Settings()
    )
    return reachability(found, {}, WEB)


def test_few_pods_have_named_columns() -> None:
    matrix = Matrix.of([A, B, C], ["80/tcp"], [PodPath(A, B, "80/tcp"), PodPath(B, C, "80/tcp")])
    assert drawn(matrix).splitlines() == [
        "",
        "80/tcp",
        "from \\ to (x/...)  a  b  c",
        "a                     ●  ·",
        "b                  ·     ●",
        "c                  ·  ·",
        "",
        "  · may not connect",
        "  ● may connect",
    ]


def test_terminals_without_unicode_get_ascii() -> None:
    matrix = Matrix.of([A, B, C], ["80/tcp"], [PodPath(A, B, "80/tcp")])
    assert "a                     o  ." in drawn(matrix, encoding="ascii").splitlines()


def test_ports_with_equal_matrices_share_a_drawing() -> None:
    same = [PodPath(A, B, "80/tcp"), PodPath(A, B, "53/udp"), PodPath(B, A, "81/tcp")]
    text = drawn(Matrix.of([A, B], ["80/tcp", "81/tcp", "53/udp"], same))
    assert [line for line in text.splitlines() if "/tcp" in line] == ["80/tcp, 53/udp", "81/tcp"]


def test_what_opened_and_closed_is_marked() -> None:
    opened, closed = PodPath(A, B, "80/tcp"), PodPath(B, A, "80/tcp")
    matrix = Matrix.of([A, B], ["80/tcp", "81/tcp"], [opened])
    lines = drawn(matrix, opened=[opened], closed=[closed]).splitlines()
    assert lines[1:5] == ["80/tcp", "from \\ to (x/...)  a  b", "a                     +", "b                  -"]
    assert lines[6] == "81/tcp", "a change of one port is marked there only"
    assert "  + opened since the step before" in lines
    assert "  - closed since the step before" in lines


def test_colours_on_a_terminal_only() -> None:
    opened = PodPath(A, B, "80/tcp")
    matrix = Matrix.of([A, B], ["80/tcp"], [opened])
    assert "\x1b[1;32m" in drawn(matrix, terminal=True, opened=[opened])
    assert "\x1b" not in drawn(matrix, opened=[opened])


def test_thirty_long_names_fit_into_80_columns() -> None:
    matrix = many(30, 3, name="a-name-much-longer-than-a-row-can-hold-")
    lines = drawn(matrix).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith(" 1 "))
    assert "…" in row
    assert f" 1 is {matrix.pods[0]}" in lines, "the whole name stands below"
    assert lines[2].split() == ["1"] * 10 + ["2"] * 10 + ["3"]
    assert lines[3].split()[-3:] == ["8", "9", "0"]


def test_more_pods_are_summarised_in_groups() -> None:
    found = cluster(*(pod(f"ns{i % 3}/p{i}", tier=i // 3 % 2) for i in range(36)), settings=Settings())
    lines = drawn(reachability(found, {}, WEB), groups=group_names(found)).splitlines()
    assert lines[0] == "36 pods, too many for a row each: drawn as 6 groups of pods."
    row = next(line for line in lines if line.startswith("1 ns0, tier 0"))
    assert row.split()[4:] == ["●", "●", "·", "·", "·", "·"]


def test_groups_mark_partial_access_and_changes() -> None:
    pods = [PodKey(f"{space}/p{number}") for space in "ab" for number in range(16)]
    one, two = PodPath(pods[0], pods[1], "80/tcp"), PodPath(pods[0], pods[16], "80/tcp")
    matrix = Matrix.of(pods, ["80/tcp"], [one, two])
    assert [line.split()[-2:] for line in drawn(matrix).splitlines()[4:6]] == [["◐", "◐"], ["·", "·"]]
    both = drawn(matrix, opened=[one, two], closed=[PodPath(pods[1], pods[0], "80/tcp")])
    assert [line.split()[-2:] for line in both.splitlines()[4:6]] == [["±", "+"], ["·", "·"]]


def test_too_many_groups_become_namespaces_and_then_a_list() -> None:
    found = cluster(*(pod(f"ns{i % 3}/p{i}", tier=i) for i in range(60)), settings=Settings())
    text = drawn(reachability(found, {}, WEB), groups=group_names(found))
    assert text.startswith("60 pods, too many for a row each: drawn as 3 namespaces.")
    lines = drawn(many(100, 50)).splitlines()
    assert lines[0] == "100 pods, too many for a row each: listed as 50 namespaces."
    assert lines[2] == "80/tcp: 50 of 2500 pairs of namespaces may connect"
    assert lines[3] == "  ns0 -> ns0: all"
    assert lines[-1] == "  and 10 more; --json has every pair of pods"


def test_group_names_have_tenant_and_tier_when_needed() -> None:
    demo = cluster(pod("d/x", owner="t1", tier="front"), pod("d/y"), settings=pod_label())
    assert group_names(demo) == {"d/x": "d, tenant t1, tier front", "d/y": "d, no tenant, tier default"}
    plain = cluster(pod("a/x"), pod("b/y"), settings=Settings())
    assert group_names(plain) == {"a/x": "a", "b/y": "b"}


def test_without_pods_there_is_one_sentence() -> None:
    assert drawn(Matrix.of([], ["80/tcp"], [])) == "There is no pod that could connect.\n"
