"""Whatever one namespace does within its rights, another's policy is in force soon: real controller, real switches."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from romana_ovs.pipeline.tables import TABLE_IDS
from tests.support.controller_process import Controller
from tests.support.manifests import TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs, pytest.mark.alone]

SOON = 2.0
"""Seconds until another namespace's policy has to be in force."""
VICTIMS = 6
WEIGHT = {"blocks": 900, "ranges": 60}
"""What a large policy of the attacks has; some four thousand rows for each group of pods that it selects."""


def large(name: str, edit: int = 0, selected: str = "{}", labels: int = 0) -> dict[str, Any]:
    blocks = [{"ipBlock": {"cidr": f"203.{at >> 8}.{at & 255}.{edit % 256}/32"}} for at in range(WEIGHT["blocks"])]
    asked = [{"podSelector": {"matchLabels": {f"k{edit % 40}-{at}": "1"}}} for at in range(labels)]
    ports = [{"port": 1 + 200 * at + edit % 50, "endPort": 150 + 200 * at} for at in range(WEIGHT["ranges"])]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "red"},
        "spec": {"podSelector": json.loads(selected), "ingress": [{"from": blocks + asked, "ports": ports}]},
    }


def small(name: str, edit: int, *, asks: bool) -> dict[str, Any]:
    """A policy of one rule, which asks something new of each pod's labels when it `asks`."""
    key = f"k{edit}" if asks else "app"
    peers = [{"podSelector": {"matchLabels": {key: "red-a"}}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "red"},
        "spec": {"podSelector": {}, "ingress": [{"from": peers, "ports": [{"port": 1 + edit % 60_000}]}]},
    }


def deny(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "blue"},
        "spec": {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress"]},
    }


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Ovs, Controller]]:
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        names = [("red", f"red-{letter}") for letter in "abcd"] + [("blue", f"blue-{at}") for at in range(VICTIMS)]
        manifests = "".join(
            placed_pod(name, namespace=space, node=f"node{1 + at % 2}") for at, (space, name) in enumerate(names)
        )
        # Labels of every name that policies will ask for: each question tells the pods of red apart.
        asked = {f"k{at}": "red-a" for at in range(400)}
        manifests += placed_pod("red-x", namespace="red", **asked)
        controller.write("pods.yaml", TWO_NODES + manifests)
        controller.start()
        for at in (1, 2):
            ovs.bridge(f"br{at}", node=f"node{at}", controller=controller.openflow)
        for at, (space, name) in enumerate([*names, ("red", "red-x")]):
            node = 1 if name == "red-x" else 1 + at % 2
            ovs.port(f"br{node}", f"p{at}", iface_id=f"{space}/{name}", ofport=1 + at)
        controller.until(lambda state: state["pods"]["red/red-x"]["port"], "the last port is known")
        controller.settled(2)
        yield ovs, controller


def in_force_within(ovs: Ovs, controller: Controller, at: int) -> float:
    """How long after its manifest is written a deny-all of a pod of blue changes what the pod's node says of it."""
    name, bridge = f"blue-{at}", f"br{1 + at % 2}"
    address = controller.state["pods"][f"blue/{name}"]["address"]

    def said() -> str:
        found = ovs.ofctl(bridge, "dump-flows", f"table={TABLE_IDS['L3ForwardLocal']},ip,nw_dst={address}")
        return "".join(re.findall(r"actions=.*", found))

    before = said()
    assert before
    begin = time.monotonic()
    controller.write(f"deny-{name}.yaml", json.dumps(deny(name)))
    eventually(lambda: said() != before, "the deny-all is in force", 60)
    return time.monotonic() - begin


@contextmanager
def meanwhile(act: Callable[[int], None], pause: float) -> Iterator[None]:
    """Have `act` done again and again, with the number of times before."""
    over = threading.Event()

    def work() -> None:
        count = 0
        while not over.wait(pause):
            act(count)
            count += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def four_large_one_edited(controller: Controller) -> Callable[[int], None]:
    for at in range(4):
        controller.write(f"large-{at}.yaml", json.dumps(large(f"large-{at}", at)))
    return lambda count: controller.write("large-0.yaml", json.dumps(large("large-0", 7 + count)))


def ten_at_once(controller: Controller) -> Callable[[int], None]:
    def act(count: int) -> None:
        for at in range(10):
            controller.write(f"large-{at}.yaml", json.dumps(large(f"large-{at}", 10 * count + at)))

    return act


def many_small(controller: Controller) -> Callable[[int], None]:
    return lambda count: controller.write("small.yaml", json.dumps(small("small", count, asks=False)))


def many_questions(controller: Controller) -> Callable[[int], None]:
    return lambda count: controller.write("small.yaml", json.dumps(small("small", count % 400, asks=True)))


STORMS = {
    "four large policies, one edited each second": (four_large_one_edited, 1.0),
    "ten large policies at once, again and again": (ten_at_once, 3.0),
    "sixty edits a second": (many_small, 1 / 60),
    "sixty edits a second, each with a question about labels": (many_questions, 1 / 60),
}


@pytest.mark.parametrize("storm", STORMS)
def test_a_deny_all_is_not_delayed_by_another_namespace(running: tuple[Ovs, Controller], storm: str) -> None:
    ovs, controller = running
    begin, pause = STORMS[storm]
    taken = []
    with meanwhile(begin(controller), pause):
        time.sleep(2)
        for at in range(VICTIMS):
            taken.append(in_force_within(ovs, controller, at))
            time.sleep(0.7)
    for file in [
        *controller.manifests.glob("deny-*"),
        *controller.manifests.glob("large-*"),
        *controller.manifests.glob("small*"),
    ]:
        file.unlink()
    controller.until(lambda state: not state["refused"], "the policies are gone")
    controller.settled(2)
    assert "Traceback" not in controller.log
    assert max(taken) < SOON, taken
