"""The prompt's names and words, without a cluster behind them."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest

from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.controller import NodeState, PodState, State
from romana_ovs_emulate.emulation import Emulation
from romana_ovs_emulate.pods import PodPlacement, RunningPod
from romana_ovs_emulate.prompt import Prompt, resolve, with_addresses


class Asked:
    """Stands for a pod's process and remembers what it was asked."""

    def __init__(self) -> None:
        self.targets: list[Any] = []

    def probe(self, targets: list[Any]) -> list[Any]:
        self.targets += targets
        return [SimpleNamespace(open=target[1] == 80, name="y/b", detail="no answer") for target in targets]


def running_pod(key: str, address: str) -> RunningPod:
    place = PodPlacement(PodKey(key), "node1", address, "0a:58:00:00:00:01")
    return RunningPod(place, f"rmn-{key}", "p", cast(Any, Asked()))


PODS = {
    PodKey(key): running_pod(key, f"10.0.0.{number}")
    for number, key in enumerate(("x/a", "y/b", "x/c", "y/c"), start=1)
}


def test_full_names_and_unique_short_names_resolve() -> None:
    assert resolve(PODS, "x/a").place.pod == "x/a"
    assert resolve(PODS, "b").place.pod == "y/b"
    with pytest.raises(InputError, match="c is the name of several pods: x/c, y/c"):
        resolve(PODS, "c")
    with pytest.raises(InputError, match="neither a pod nor a command"):
        resolve(PODS, "z")


@pytest.mark.parametrize(
    ("word", "there"),
    [
        ("x/a", "10.0.0.1"),
        ("b", "10.0.0.2"),
        ("b:81", "10.0.0.2:81"),
        ("http://y/c:80/x", "http://10.0.0.4:80/x"),
        ("c", "c"),
        ("abc", "abc"),
        ("fx/a", "fx/a"),
        ("x/ab", "x/ab"),
        ("-c", "-c"),
        ("10.0.0.9", "10.0.0.9"),
    ],
)
def test_names_in_commands_become_addresses(word: str, there: str) -> None:
    assert with_addresses(word, PODS) == there


def talk(text: str) -> tuple[str, list[tuple[str, ...]]]:
    """What the prompt says to these lines, and the matrices it was asked for."""
    emulation = SimpleNamespace(
        pods=PODS,
        nodes={"node1": SimpleNamespace(name="node1", netns="n", dump_flows="ovs-ofctl dump-flows unix:x")},
        node_addresses={"node1": "10.0.0.65"},
        failures=("pod x/b cannot be started: why",),
        state=State(
            1,
            {"node1": NodeState(True, 1, {"total": 7})},
            {PodKey("x/a"): PodState("node1", "10.0.0.1", "0a:58:0a:00:00:01", 4)},
        ),
    )
    shown: list[tuple[str, ...]] = []
    out = io.StringIO()
    Prompt(cast(Emulation, emulation), show_matrix=shown.append, stdin=io.StringIO(text), stdout=out).run()
    return out.getvalue(), shown


def test_curl_prints_the_name_or_the_reason() -> None:
    said, _ = talk("x/a curl b\na curl y/b:81\nb curl 10.0.0.3\nexit\n")
    assert said.splitlines() == ["y/b", "curl: y/b:81 (10.0.0.2): no answer after 1.5 s", "y/b"]


def test_lists_have_pods_nodes_and_flow_commands() -> None:
    said, _ = talk("pods\nnodes\n")
    assert "x/a  node1  10.0.0.1" in said
    assert "rmn-x/a" in said
    assert "node1  10.0.0.65  connected   total 7" in said
    assert "node1: ovs-ofctl dump-flows unix:x" in said


def test_pods_that_cannot_be_started_are_named() -> None:
    said, _ = talk("pods\nexit\n")
    assert said.strip().splitlines()[-1] == "pod x/b cannot be started: why"


def test_a_matrix_of_given_ports() -> None:
    assert talk("matrix 80/tcp, 81/udp\nmatrix\n\n\nexit\nmatrix")[1] == [("80/tcp", "81/udp"), ()]


def test_an_error_ends_one_line_only() -> None:
    said, shown = talk("z curl b\na\na curl b:http\n'\nflows node9\nmatrix\n")
    assert [line.split(" ")[0] for line in said.strip().splitlines()] == ["z", "a", "http", "the", "there"]
    assert shown == [()]


def test_help_and_the_end_of_input() -> None:
    said, _ = talk("help")
    assert "POD curl POD[:PORT]" in said


def test_names_complete() -> None:
    emulation = SimpleNamespace(pods=PODS, nodes={"node1": None})
    prompt = Prompt(cast(Emulation, emulation), show_matrix=lambda _: None, stdin=io.StringIO(), stdout=io.StringIO())
    assert prompt.completenames("x/") == ["x/a", "x/c"]
    assert prompt.completedefault("b", "x/a curl b", 9, 10) == ["b"]
    assert prompt.completedefault("c", "x/a curl c", 9, 10) == [], "two pods are called c"
    assert prompt.completenames("no") == ["nodes", "node1"]
