"""A port, an address and what is remembered of connections are a pod's by its UID: on real switches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from romana_ovs.model.objects import PodKey
from romana_ovs_emulate import failures
from romana_ovs_emulate import pods as emulated
from tests.support.controller_process import Controller
from tests.support.frames import udp_hex
from tests.support.live_cluster import LiveCluster, attempts, live_cluster
from tests.support.manifests import TWO_NODES, ingress_policy, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs]


@pytest.fixture
def one() -> Iterator[tuple[Ovs, Controller]]:
    """One node with pod a/x, whose UID is old and whose port says so, programmed."""
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("nodes.yaml", TWO_NODES)
        controller.write("x.yaml", placed_pod("x", uid="old"))
        controller.write("y.yaml", placed_pod("y"))
        controller.start()
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        attach(ovs, "px", "old", 1)
        controller.until(lambda state: state["pods"].get("a/x", {}).get("port") == 1, "the port is known")
        controller.settled()
        yield ovs, controller


def attach(ovs: Ovs, name: str, uid: str, ofport: int) -> None:
    """A port of a/x, of this UID from the transaction on that makes it."""
    ovs.vsctl(
        "add-port",
        "br-int",
        name,
        "--",
        "set",
        "interface",
        name,
        "type=internal",
        f"ofport_request={ofport}",
        "external_ids:iface-id=a/x",
        f"external_ids:iface-id-ver={uid}",
    )


def serves(ovs: Ovs, ofport: int, address: str) -> bool:
    """Whether the bridge takes this address from a port."""
    return any(f"in_port={ofport}," in flow and f"nw_src={address} " in flow for flow in ovs.flows("br-int"))


def test_a_late_watch_gives_a_new_pod_nothing_of_the_old(
    one: tuple[Ovs, Controller],
) -> None:
    ovs, controller = one
    was = controller.state["pods"]["a/x"]
    assert was["uid"] == "old" and serves(ovs, 1, was["address"])
    ovs.vsctl(
        "del-port",
        "px",
        "--",
        "add-port",
        "br-int",
        "px2",
        "--",
        "set",
        "interface",
        "px2",
        "type=internal",
        "ofport_request=5",
        "external_ids:iface-id=a/x",
        "external_ids:iface-id-ver=new",
    )
    controller.until(
        lambda state: any("pod a/x of UID new, whose UID is old" in text for text in state["problems"]),
        "the stranger is told",
    )
    controller.settled()
    assert not any(was["address"] in flow or "in_port=5" in flow for flow in ovs.flows("br-int"))
    assert controller.state["pods"]["a/x"]["port"] is None
    controller.after_change(lambda: controller.write("x.yaml", placed_pod("x", uid="new")))
    is_now = controller.until(lambda state: state["pods"]["a/x"]["port"] == 5, "pod and port meet")["pods"]["a/x"]
    controller.settled()
    assert is_now["uid"] == "new" and is_now["address"] != was["address"]
    assert serves(ovs, 5, is_now["address"]) and not any(was["address"] in flow for flow in ovs.flows("br-int"))
    assert controller.state["problems"] == []


def test_while_two_ports_claim_one_name_each_pod_has_its_own(one: tuple[Ovs, Controller]) -> None:
    """Two sandboxes overlap for seconds; the order in which their ports come and go decides nothing."""
    ovs, controller = one
    was = controller.state["pods"]["a/x"]["address"]
    attach(ovs, "px2", "new", 5)
    controller.until(lambda state: any("UID new" in text for text in state["problems"]), "the stranger is told")
    controller.settled()
    assert serves(ovs, 1, was) and not serves(ovs, 5, was)
    controller.after_change(lambda: controller.write("x.yaml", placed_pod("x", uid="new")))
    is_now = controller.until(lambda state: state["pods"]["a/x"]["port"] == 5, "pod and port meet")["pods"]["a/x"]
    controller.settled()
    assert serves(ovs, 5, is_now["address"]) and not any("in_port=1," in flow for flow in ovs.flows("br-int"))
    ovs.vsctl("del-port", "px")
    controller.until(lambda state: not state["problems"], "the old one's port is gone")
    controller.settled()
    assert serves(ovs, 5, is_now["address"])


def test_a_restarted_controller_knows_whose_addresses_they_are(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    before = {key: (one["uid"], one["address"]) for key, one in controller.state["pods"].items()}
    assert before["a/x"][0] == "old" and before["a/y"][0]
    controller.stop()
    controller.start()
    controller.settled()
    assert {key: (one["uid"], one["address"]) for key, one in controller.state["pods"].items()} == before
    controller.stop()
    controller.write("x.yaml", placed_pod("x", uid="new"))
    controller.start()
    controller.until(lambda state: state.get("pods", {}).get("a/x", {}).get("uid") == "new", "the new pod is there")
    controller.settled()
    assert controller.state["pods"]["a/x"]["address"] != before["a/x"][1]
    assert not any(before["a/x"][1] in flow for flow in ovs.flows("br-int"))


def test_connections_of_a_reused_address_and_port_are_flushed() -> None:
    """Attached by hand, without a UID, and with an address of its own: nothing changes for the switch's tables."""
    status = {"phase": "Running", "podIP": "192.168.7.7"}
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("nodes.yaml", TWO_NODES)
        controller.write("x.yaml", placed_pod("x", uid="old", status=status))
        controller.start()
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        ovs.port("br-int", "px", iface_id="a/x", ofport=1)
        controller.until(lambda state: state["pods"].get("a/x", {}).get("port") == 1, "the port is known")
        controller.settled()
        before = ovs.flows("br-int")
        (place,) = [flow for flow in before if "in_port=1," in flow and "nw_src=192.168.7.7 " in flow]
        zone = int(re.search(r"set_field:0x([0-9a-f]+)0000/0xffff0000->reg11", place)[1], 16)  # type: ignore[index]
        packet = udp_hex("192.168.7.7", "192.168.8.8")
        ovs.ofctl("br-int", "packet-out", f"in_port=LOCAL,packet={packet},actions=ct(commit,zone={zone})")
        assert "192.168.7.7" in ovs.appctl("dpctl/dump-conntrack")
        controller.after_change(lambda: controller.write("x.yaml", placed_pod("x", uid="new", status=status)))
        state = controller.until(lambda state: state["pods"]["a/x"]["uid"] == "new", "it is another pod")
        assert state["pods"]["a/x"]["address"] == "192.168.7.7"
        eventually(lambda: "192.168.7.7" not in ovs.appctl("dpctl/dump-conntrack"), "it is forgotten")
        assert ovs.flows("br-int") == before


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    manifests = {
        "base": placed_pod("client", "node1") + placed_pod("near", "node1"),
        "server": placed_pod("server", "node2"),
    }
    with live_cluster(tmp_path_factory.mktemp("m"), ("node1", "node2"), manifests=manifests) as running:
        yield running


def test_a_pod_of_a_folder_that_is_made_anew_is_another(cluster: LiveCluster) -> None:
    """Its name is all that the two have in common: not the address, the port, or what goes on there."""
    before = cluster.pod("a/server")
    assert before.place.uid and port_uid(cluster, "a/server") == before.place.uid
    client = cluster.pod("a/client").agent
    client.stream(before.place.address, 81, "udp", push=True)
    eventually(lambda: any(one["received"] > 100 for one in client.streams()), "the stream is answered")
    entries = cluster.node("node2").appctl("dpctl/dump-conntrack")
    assert before.place.address in entries
    with attempts(cluster, "a/client", ("udp", "a/server", 80)) as old:
        eventually(lambda: old.report()[0]["good"], "the old one answers")
        cluster.edit(lambda: cluster.remove("server"))
        cluster.edit(lambda: cluster.write("server", placed_pod("server", "node2")))
        after = cluster.pod("a/server")
        assert after.place.uid not in ("", before.place.uid) and after.place.address != before.place.address
        assert after.port != before.port and port_uid(cluster, "a/server") == after.place.uid
        good = old.decided()[0]["good"]
        assert old.decided()[0]["good"] == good, "nobody answers at the old address"
    client.close_streams()
    for node in ("node1", "node2"):
        assert not any(before.place.address in text for text in cluster.flows(node))
    # An edit of the same pod is none.
    cluster.edit(lambda: cluster.write("server", placed_pod("server", "node2", more="label")))
    assert cluster.pod("a/server").place == after.place


def port_uid(cluster: LiveCluster, key: str) -> str:
    running = cluster.pod(key)
    node = cluster.node(running.place.node)
    return str(
        json.loads(node.vsctl("--format=json", "--columns=external_ids", "list", "interface", running.port))["data"][0][
            0
        ][1][1][1]
    )


def test_one_pod_that_cannot_be_started_keeps_no_other_from_it(
    cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cluster.emulation._on_error = said.append
    lines = emulated._netns_commands

    def broken(place: emulated.PodPlacement, mtu: int) -> list[str]:
        return [*lines(place, mtu), "link set missing up"] if place.pod == "a/bad" else lines(place, mtu)

    with monkeypatch.context() as patch:
        patch.setattr(emulated, "_netns_commands", broken)
        cluster.write("more", placed_pod("bad", "node1") + placed_pod("good", "node1") + placed_pod("other", "node2"))
        eventually(lambda: {"a/good", "a/other"} <= cluster.emulation.pods.keys(), "the others run")
        eventually(lambda: cluster.emulation.settled, "all is there that can be")
        cluster.edit(
            lambda: cluster.write("late", placed_pod("late", "node1") + ingress_policy("p", "app: late", "{}")),
            portless=1,
        )
        assert "a/late" in cluster.emulation.pods and "a/bad" not in cluster.emulation.pods
        assert len(said) == 1 and said[0].startswith("pod a/bad cannot be started: ")
        assert cluster.emulation.failures == tuple(said)
        patch.setattr(failures, "RETRY_SECONDS", 0.0)
    cluster.emulation.settle()
    monkeypatch.setattr(failures, "RETRY_SECONDS", 0.0)
    cluster.emulation.reconcile()
    cluster.emulation.settle()
    assert PodKey("a/bad") in cluster.emulation.pods and cluster.emulation.failures == ()
