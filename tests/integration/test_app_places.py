"""Where the real application takes pods to be: at their ports, whatever manifests and other nodes say."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.controller_process import Controller, sent_during
from tests.support.manifests import TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs, ofports

pytestmark = [pytest.mark.root, needs_ovs]


@pytest.mark.parametrize("ports_first", [False, True])
def test_pods_that_no_manifest_binds_are_where_their_ports_are(ports_first: bool) -> None:
    """Somebody else's bridge has them all, whatever placing them in turn would have said."""
    unbound = "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: '{}', namespace: a}}\nspec: {{containers: []}}\n"
    names = ("x", "y", "z")
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:

        def attach() -> None:
            ovs.bridge("br-int", node="node2", controller=controller.openflow)
            for number, name in enumerate(names, start=1):
                ovs.port("br-int", f"p{name}", iface_id=f"a/{name}", ofport=number)

        controller.write("pods.yaml", "".join(unbound.format(name) for name in names))
        if ports_first:
            attach()
        controller.start()
        if not ports_first:
            controller.until(lambda state: len(state["pods"]) == len(names), "the pods are known")
            attach()
        controller.until(
            lambda state: (
                [each["node"] for each in state["pods"].values()] == ["node2"] * len(names)
                and [each["port"] for each in state["pods"].values()] == [1, 2, 3]
            ),
            "all pods are on the node of the bridge",
        )
        controller.settled()
        assert {"in_port=1", "in_port=2", "in_port=3"} <= ofports(ovs)
        before = ovs.flows("br-int")
        controller.stop()

        def restart() -> None:
            controller.start()
            controller.settled()

        assert sent_during(ovs, "br-int", restart) == []
        assert ovs.flows("br-int") == before


def test_two_nodes_and_a_port_in_use_elsewhere() -> None:
    with Ovs() as first, Ovs() as second, Controller((first.remote, second.remote)) as controller:
        controller.write("pods.yaml", TWO_NODES + placed_pod("x") + placed_pod("y", node="node2"))
        controller.start()
        for node, ovs in (("node1", first), ("node2", second)):
            ovs.bridge("br-int", node=node, controller=controller.openflow)
        second.port("br-int", "px", iface_id="a/x", ofport=1)
        state = controller.until(lambda state: state["problems"], "the stray pod is told")
        assert "belongs on node node1" in state["problems"][0]
        second.port("br-int", "py", iface_id="a/y", ofport=2)
        controller.until(lambda state: state["pods"]["a/y"]["port"] == 2, "the port is known")
        controller.settled(2)
        assert "in_port=2" in ofports(second)
        assert "in_port=1" not in ofports(second)

        def unplugged() -> None:
            second.vsctl("del-port", "py")

        sent = sent_during(first, "br-int", partial(controller.after_change, unplugged, 2))
        assert sent == []
