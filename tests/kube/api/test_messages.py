"""Frames through a pipe."""

from __future__ import annotations

import gc
import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.api.messages import (
    FrameError,
    FrameReader,
    Health,
    ListCompleted,
    ListStarted,
    LogLine,
    ObjectsObserved,
    Start,
    Update,
    frame,
)
from romana_ovs.kube.api.resources import CLUSTER
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import ContainerPort, Pod, Protocol
from romana_ovs.model.settings import Settings
from tests.support.strategies import clusters

DNS = ContainerPort(53, Protocol.UDP)
POD = Pod("n", "p", labels=Labels({"a": "b"}), address=IPv4Address("10.0.0.1"), ports=(DNS,))
UPDATE = Update(ObjectId("Pod", "n", "p"), "u", "3", 1, value=POD, problems=(Problem("so"),), raw={"a": [1, None]})
MESSAGES = [
    Start(ApiSource("/x", "y"), Settings(), CLUSTER),
    ListStarted("pods"),
    ObjectsObserved(
        "pods", (UPDATE, Update(ObjectId("Pod", "n", "q"), exists=False)), (ObjectId("Pod", "n", "r"),), 1.5
    ),
    ListCompleted("pods"),
    Health("pods", "no"),
    LogLine(20, "a", "b"),
]


@given(st.lists(st.integers(1, 200)))
def test_frames_are_reassembled_however_the_pipe_splits_them(cuts: list[int]) -> None:
    data, reader, found = b"".join(map(frame, MESSAGES)), FrameReader(), []
    for cut in cuts:
        found += reader.feed(data[:cut])
        data = data[cut:]
    found += reader.feed(data)
    assert found == MESSAGES


@given(clusters())
def test_every_object_of_a_cluster_comes_through(cluster: object) -> None:
    parts = [dict(getattr(cluster, name)) for name in ("pods", "policies", "namespaces", "nodes")]
    [found] = FrameReader().feed(frame(parts))
    assert found == parts
    assert [hash(pod) for pod in found[0].values()] == [hash(pod) for pod in parts[0].values()]


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xffxx", struct.pack("!I", 3) + b"abc", struct.pack("!I", 0), struct.pack("!I", 1) + b"."]
)
def test_what_is_no_frame_is_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(data))
    assert gc.isenabled()
