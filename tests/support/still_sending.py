"""Whether pods go on sending, by the counters of their ports: what is to be heard no more must still be said."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from romana_ovs_emulate.agent.streams import PIECE
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.pods import RunningPod
from tests.support.waiting import eventually

PIECE_BYTES = len(PIECE)
"""What a pod that pushes sends at a time."""
ENOUGH = 20
"""Packets: pods that push send one every 20 ms, so whatever was under way has come or been dropped meanwhile."""


def goes_on(places: Iterable[tuple[Node, RunningPod]]) -> None:
    """Returns once each of these pods has sent ENOUGH packets more, which its node's bridge has taken."""
    for node, pod in [*places]:
        before = _sent(node, pod)
        eventually(partial(_has_sent, node, pod, before + ENOUGH), "it sends on")


def _sent(node: Node, pod: RunningPod) -> int:
    shown = re.search(r"rx pkts=(\d+)", node.ofctl("dump-ports", pod.port))
    assert shown is not None
    return int(shown[1])


def _has_sent(node: Node, pod: RunningPod, packets: int) -> bool:
    return _sent(node, pod) >= packets
