"""Port numbers are reused and given anew under 200 pods: every flow stays with the right one (docs/hazards.md B8)."""

from __future__ import annotations

import csv
import io
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from romana_ovs.pipeline import priorities
from tests.support.controller_process import Controller
from tests.support.manifests import TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.root, needs_ovs]

PODS = tuple(f"t{number % 10}/p{number}" for number in range(200))
CHURN = 40
"""Ports that are taken out and put in again in one round."""
ROUNDS = 4
ROWS = 4
"""Flows by the port of a pod: its own address, ARP from it, its fragments, and what it opens."""
BRIDGE = "br-int"
CLASSIFIED = re.compile(r"in_port=(\d+),.*nw_src=([0-9.]+)")


class Ports:
    """200 pods' dummy ports: each time that a pod gets one, it has a name that there never was."""

    def __init__(self, ovs: Ovs) -> None:
        self._ovs = ovs
        self.names: dict[str, str] = {}
        self._made = 0

    def adding(self, pod: str, request: int | None) -> list[str]:
        """The words that give a pod a port, with a number to ask for or none."""
        self._made += 1
        name = self.names[pod] = f"i{self._made}"
        words = ["--", "add-port", BRIDGE, name, "--", "set", "interface", name, "type=dummy"]
        words.append(f"external_ids:iface-id={pod}")
        return words if request is None else [*words, f"ofport_request={request}"]

    def removing(self, pod: str) -> list[str]:
        """The words that take its port away."""
        return ["--", "del-port", BRIDGE, self.names.pop(pod)]

    def asking(self, pod: str, request: int) -> list[str]:
        """The words that make its port ask for another number."""
        return ["--", "set", "interface", self.names[pod], f"ofport_request={request}"]

    def numbers(self) -> dict[str, int]:
        """Each pod's port number, as the database has it now."""
        listed = self._ovs.vsctl("--format=csv", "--no-headings", "--columns=name,ofport", "list", "interface")
        by_name = {name: int(number) for name, number in csv.reader(io.StringIO(listed)) if number.isdigit()}
        return {pod: by_name[name] for pod, name in self.names.items() if name in by_name}


@pytest.fixture
def full() -> Iterator[tuple[Ovs, Controller, Ports]]:
    """One node with all pods on it, programmed."""
    settings = "endpoint_bits = 8\nsegment_bits = 10"
    with Ovs(flags=("--enable-dummy",)) as ovs, Controller((ovs.remote,), settings=settings) as controller:
        controller.write("nodes.yaml", TWO_NODES)
        controller.write(
            "pods.yaml", "".join(placed_pod(each.partition("/")[2], namespace=each.partition("/")[0]) for each in PODS)
        )
        controller.start()
        ovs.bridge(BRIDGE, node="node1", controller=controller.openflow)
        ovs.vsctl("set", "bridge", BRIDGE, "datapath_type=dummy")
        ports = Ports(ovs)
        ovs.vsctl(*[word for number, each in enumerate(PODS, 1) for word in ports.adding(each, number)])
        assert _settled(controller, ports) == {each: number for number, each in enumerate(PODS, 1)}
        yield ovs, controller, ports


def _settled(controller: Controller, ports: Ports) -> Mapping[str, int]:
    """The pods' port numbers, once the controller knows them and the switch has what that needs."""

    def known(state: dict[str, Any]) -> bool:
        truth = ports.numbers()
        return truth == {each: found["port"] for each, found in state["pods"].items() if found["port"] is not None}

    controller.until(known, "the controller knows every port")
    controller.settled()
    return ports.numbers()


def _expected(controller: Controller, truth: Mapping[str, int]) -> set[tuple[int, str]]:
    return {(number, controller.state["pods"][each]["address"]) for each, number in truth.items()}


def _right(ovs: Ovs, controller: Controller, truth: Mapping[str, int]) -> None:
    """Fails the test unless every flow that names a port, or leads to one, is that of the pod which has it now."""
    flows, expected = ovs.flows(BRIDGE), _expected(controller, truth)
    classified = (CLASSIFIED.search(line) for line in flows)
    assert {(int(found[1]), found[2]) for found in classified if found} == expected
    # Pre-restart pods have one row more, for midstream packets.
    loose = f"priority={int(priorities.ConntrackCommit.LOOSE_METERED)},"
    named = re.findall(r"in_port=(\d+)", "\n".join(line for line in flows if loose not in line))
    assert {number: named.count(str(number)) for number in truth.values()} == dict.fromkeys(truth.values(), ROWS)
    assert len(named) == ROWS * len(truth)
    pods = {found["address"] for found in controller.state["pods"].values()}
    places = re.findall(r"nw_dst=([0-9.]+) actions=.*set_field:(0x[0-9a-f]+)/0xffff->reg11", "\n".join(flows))
    assert {(int(number, 16), address) for address, number in places if address in pods} == expected


@contextmanager
def _watching(ovs: Ovs) -> Iterator[Callable[[], list[tuple[str, int, str]]]]:
    """Yields what lists (event, port, address) of the rows that say who may send from a port, in order.

    Those that are there already come first, as INITIAL.
    """
    heard = ovs.folder / "monitor"
    argv = ["ovs-ofctl", "-O", "OpenFlow15", "monitor", ovs.management(BRIDGE), "watch:"]
    with heard.open("w") as out:
        monitor = subprocess.Popen(argv, stdout=out, stderr=out, env=ovs.environment)

    def events() -> list[tuple[str, int, str]]:
        lines = (re.match(r" event=(\w+) (.*)", line) for line in heard.read_text().splitlines())
        found = ((line[1], CLASSIFIED.search(line[2])) for line in lines if line)
        return [(event, int(row[1]), row[2]) for event, row in found if row]

    try:
        eventually(lambda: "reply" in heard.read_text(), "the monitor watches")
        yield events
    finally:
        monitor.terminate()
        monitor.wait(PATIENCE)


def test_numbers_that_are_reused_never_serve_two_pods(full: tuple[Ovs, Controller, Ports]) -> None:
    ovs, controller, ports = full
    dice = random.Random(8)
    with _watching(ovs) as events:
        for turn in range(ROUNDS):
            before = ports.numbers()
            chosen = dice.sample(sorted(before), CHURN)
            numbers: list[int | None] = [before[each] for each in chosen]
            dice.shuffle(numbers)
            # Some ask for a number that another has, some for none.
            numbers[:6] = [None, None, None, *(before[each] for each in dice.sample(sorted(before), 3))]
            out = [word for each in chosen for word in ports.removing(each)]
            back = [word for each, number in zip(chosen, numbers, strict=True) for word in ports.adding(each, number)]
            if turn % 2:
                ovs.vsctl(*out, *back)
            else:
                kept = ports.names
                ports.names = {each: name for each, name in kept.items() if each not in chosen}
                ovs.vsctl(*out)
                _right(ovs, controller, _settled(controller, ports))
                ports.names = kept
                ovs.vsctl(*back)
            truth = _settled(controller, ports)
            assert len(truth) == len(PODS)
            assert sum(truth[each] != before[each] for each in chosen) > CHURN / 2
            _right(ovs, controller, truth)
            # Ports that stay and take each other's numbers.
            ring = dice.sample(sorted(truth), 10)
            ovs.vsctl(*[word for one, other in pairwise([*ring, ring[0]]) for word in ports.asking(one, truth[other])])
            _right(ovs, controller, _settled(controller, ports))
        truth = ports.numbers()
        told = events()
    owners: dict[int, set[str]] = {}
    for event, port, address in told:
        owner = owners.setdefault(port, set())
        if event in ("INITIAL", "ADDED"):
            owner.add(address)
            assert len(owner) == 1, f"port {port} is {owner}'s"
        elif event == "DELETED":
            owner.discard(address)
    assert {(port, address) for port, owner in owners.items() for address in owner} == _expected(controller, truth)
    assert sum(event == "DELETED" for event, _, _ in told) >= ROUNDS * CHURN


def test_numbers_that_a_restarted_switch_gives_anew_are_followed(full: tuple[Ovs, Controller, Ports]) -> None:
    ovs, controller, ports = full
    before = _settled(controller, ports)
    dice = random.Random(9)
    pairs = dice.sample(sorted(before), 2 * CHURN)
    ovs.kill_switch()
    # Two ports that ask for one number: which of them gets it, and what the other gets, is for the new process to say.
    asking = zip(pairs[:CHURN], pairs[CHURN:], strict=True)
    ovs.vsctl("--no-wait", *[word for one, other in asking for word in ports.asking(one, before[other])])
    ovs.start_switch()
    eventually(lambda: len(ports.numbers()) == len(PODS), "every port has a number")
    truth = _settled(controller, ports)
    moved = [each for each in PODS if truth[each] != before[each]]
    assert len(moved) >= CHURN / 2
    _right(ovs, controller, truth)
    ovs.vsctl(*[word for each in moved for word in ports.removing(each)])
    left = _settled(controller, ports)
    assert len(left) == len(PODS) - len(moved)
    _right(ovs, controller, left)
    ovs.vsctl(*[word for each in reversed(moved) for word in ports.adding(each, truth[each])])
    _right(ovs, controller, _settled(controller, ports))
