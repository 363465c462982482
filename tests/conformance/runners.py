"""The table on an emulated cluster, with real packets: several cases at a time, each in namespaces of its own.

A policy decides about pods of its own namespace only, so cases side by side do not meet, as long as nobody looks at
paths from one to the other. What an ipBlock or a selector of all namespaces holds of the others is not looked at.
"""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address
from typing import NamedTuple, Protocol, cast

import pytest

from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import PodPath
from romana_ovs_emulate.emulation import Emulation
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.probe import probe_paths
from tests.conformance.offline import expected
from tests.conformance.states import BASE_STATE, State, endpoints, in_lane, lane_name, resolved, states
from tests.conformance.words import Case, Claim, Manifest, Step
from tests.support.netns_sockets import within

LANES = 6
LOOK = patience(0.4)
"""Seconds that a closed path is watched: hundreds of times what an open one takes. Open ones get a second chance."""
PATIENCE = patience(4.0)
"""Seconds that a single open path may take."""


class EmulatedCluster(Protocol):
    """An emulated cluster of which a runner replaces the objects."""

    patience: float
    """How long its controller may take to learn of what is shown, in seconds."""

    @property
    def emulation(self) -> Emulation:
        """Its nodes and pods."""

    def show(self, manifests: Sequence[Manifest]) -> None:
        """Make these all the objects that there are; return when every switch has what the controller knows of them."""


class Turn(NamedTuple):
    """One step of a case that is looked at in a lane."""

    case: Case
    step: Step
    state: State


def rounds(cases: Iterable[Case], lanes: int = LANES) -> Iterator[list[Turn | None]]:
    """Every step of every case: what each lane does at a time, None where it has no more to do."""
    queues: list[list[Turn]] = [[] for _ in range(lanes)]
    for case in cases:
        min(queues, key=len).extend(Turn(case, step, state) for step, state in states(case.steps))
    for number in range(max(map(len, queues))):
        yield [queue[number] if number < len(queue) else None for queue in queues]


def asked_of(request: pytest.FixtureRequest) -> list[Case]:
    """The cases whose tests, in the file of the fixture that asks, are part of this session."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    cases: list[Case] = [cast(Case, item.callspec.params["case"]) for item in tests]
    return list({case.name: case for case in cases}.values())


def run_table(cluster: EmulatedCluster, cases: Sequence[Case], mode: str) -> Mapping[str, list[str]]:
    """What is not as the table says, by the name of the case; those without a fault have an empty list."""
    found: dict[str, list[str]] = defaultdict(list, {case.name: [] for case in cases})
    for turns in rounds(cases):
        cluster.show(objects_of(cluster.emulation, turns))
        until = time.monotonic() + cluster.patience
        seen = _look_at(cluster.emulation, turns, mode)
        while any(seen.values()) and time.monotonic() < until:
            seen = _look_at(cluster.emulation, turns, mode)
        for lane, faults in seen.items():
            turn = turns[lane]
            assert turn is not None
            found[turn.case.name] += [f"{turn.step.does}: {fault}" for fault in faults]
    return found


def _forget_verdicts(emulation: Emulation) -> None:
    """Return when no switch goes by a verdict cached before (ovs-vswitchd(8)): a barrier does not wait for that."""
    with ThreadPoolExecutor(max_workers=len(emulation.nodes)) as pool:
        list(pool.map(lambda node: node.appctl("revalidator/wait"), emulation.nodes.values()))


def objects_of(emulation: Emulation | None, turns: Sequence[Turn | None]) -> list[Manifest]:
    """All manifests of a round; a lane without a turn has the base. Without an emulation no address may be asked."""

    def address(name: str, lane: int) -> IPv4Address:
        assert emulation is not None
        return _address(emulation, lane_name(name, lane))

    return [
        in_lane(manifest, lane)
        for lane, turn in enumerate(turns)
        for manifest in resolved(turn.state if turn else BASE_STATE, partial(address, lane=lane), lane)
    ]


def _address(emulation: Emulation, name: str) -> IPv4Address:
    return emulation.node_addresses[name] if name in emulation.nodes else emulation.addresses()[PodKey(name)]


def _look_at(emulation: Emulation, turns: Sequence[Turn | None], mode: str) -> dict[int, list[str]]:
    """The faults that each lane shows, all paths at once."""
    faults: dict[int, list[str]] = {lane: [] for lane, turn in enumerate(turns) if turn is not None}
    wanted: dict[PodPath, tuple[int, bool]] = {}
    for lane, turn in enumerate(turns):
        if turn is not None:
            pods = endpoints(turn.state)
            running = [pod for pod in emulation.pods if pod.partition("/")[0].endswith(f"-{lane}")]
            if sorted(running) != sorted(lane_name(pod, lane) for pod in pods):
                faults[lane].append(f"other pods run than {pods}: {running}")
            is_open = expected(turn.step, pods, mode)
            wanted |= {_in_lane(path, lane): (lane, path in is_open) for path in _paths(turn.step, pods)}
    expected_open = {path for path, (_, is_open) in wanted.items() if is_open}
    known = [path for path in wanted if {path.source, path.destination} <= emulation.pods.keys()]
    answers = probe_paths(
        emulation.pods, known, expected_open=expected_open, flush_sctp=emulation.flush_sctp, seconds=LOOK
    )
    if leaking := [path for path, answer in answers.items() if answer.open and path not in expected_open]:
        _forget_verdicts(emulation)
        answers |= probe_paths(emulation.pods, leaking, flush_sctp=emulation.flush_sctp, seconds=LOOK)
    for path, answer in answers.items():
        lane, should_be_open = wanted[path]
        if answer.open != should_be_open:
            faults[lane].append(f"{path} is {'open' if answer.open else f'closed ({answer.detail})'}")
    for lane, fault in _claims(emulation, turns):
        faults[lane].append(fault)
    return faults


def _paths(step: Step, pods: Sequence[str]) -> list[PodPath]:
    return [
        PodPath(PodKey(source), PodKey(destination), port)
        for port in step.ports
        for source in pods
        for destination in pods
        if source != destination
    ]


def _in_lane(path: PodPath, lane: int) -> PodPath:
    source, destination = (PodKey(lane_name(pod, lane)) for pod in (path.source, path.destination))
    return PodPath(source, destination, path.port)


def _claims(emulation: Emulation, turns: Sequence[Turn | None]) -> list[tuple[int, str]]:
    """The claims that do not hold; nothing outside of the cluster is there to be asked."""
    asked = [
        (lane, claim)
        for lane, turn in enumerate(turns)
        if turn is not None
        for claim in turn.step.claims
        if all(end in emulation.nodes or "/" in end for end in (claim.source, claim.destination))
    ]
    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
        opened = list(pool.map(lambda one: _connects(emulation, one[1], one[0]), asked))
    return [
        (lane, f"{claim} does not hold")
        for (lane, claim), is_open in zip(asked, opened, strict=True)
        if is_open != claim.open
    ]


def _connects(emulation: Emulation, claim: Claim, lane: int) -> bool:
    """Whether a TCP connection is answered; a refusal is an answer, for a node serves nothing."""
    port, _, protocol = claim.port.partition("/")
    assert protocol == "tcp"
    source, destination = lane_name(claim.source, lane), lane_name(claim.destination, lane)
    netns = emulation.nodes[source].netns if source in emulation.nodes else emulation.pods[PodKey(source)].netns
    with within(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as asking:
        asking.settimeout(PATIENCE if claim.open else LOOK)
        try:
            asking.connect((str(_address(emulation, destination)), int(port)))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True
