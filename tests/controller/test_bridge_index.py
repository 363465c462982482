"""The bridges of a controller: which of them are on another datapath than its setting says."""

from __future__ import annotations

import pytest

from romana_ovs.controller.bridge_index import BridgeIndex
from romana_ovs.model.bridge import NODE_ID, DatapathType
from romana_ovs.switch.bridges import BridgeRow

REMOTE = "unix:/a/db.sock"


def row(datapath: str) -> BridgeRow:
    return BridgeRow("br-int", 1, "host", {NODE_ID: "node1"}, {}, "secure", (), (), datapath)


@pytest.mark.parametrize("wanted", [None, DatapathType.SYSTEM, DatapathType.NETDEV])
@pytest.mark.parametrize("actual", ["system", "netdev", "dummy"])
def test_a_bridge_on_another_datapath_is_reported(wanted: DatapathType | None, actual: str) -> None:
    index = BridgeIndex((REMOTE,), wanted)
    assert index.replace(REMOTE, (row(actual),))
    assert set(index.bridges) == {"node1"}, "it is programmed nevertheless"
    if wanted is None or wanted.value == actual:
        assert index.warnings == ()
    else:
        (warning,) = index.warnings
        assert warning.startswith(f"bridge br-int of node node1 is on the datapath {actual}")
        assert f"datapath_type={wanted.value}" in warning
    index.replace(REMOTE, (row((wanted or DatapathType.SYSTEM).value),))
    assert index.warnings == ()
