"""Connections of a pod that is gone: no entry of conntrack is left of them."""

from __future__ import annotations

import re

import pytest

from tests.support.cni_node import CniNode, cni_node, needs_plugin
from tests.support.netns_sockets import Page, fetch
from tests.support.private_ovs import needs_ovs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs, needs_plugin]


def entries_of(node: CniNode, address: str) -> list[str]:
    """The conntrack entries of the node's datapath that name an address."""
    pattern = re.compile(rf"(src|dst)={re.escape(address)}\b")
    return [line for line in node.ovs.appctl("dpctl/dump-conntrack").splitlines() if pattern.search(line)]


def test_a_deleted_pod_leaves_no_conntrack_entry() -> None:
    with cni_node("x", "y", "z") as node:
        x, y, z = node.sandbox("x"), node.sandbox("y"), node.sandbox("z")
        gone, server, kept = node.add(x).address, node.add(y).address, node.add(z).address
        with Page(y.netns, 80, "y"):
            assert fetch(x.netns, server) == fetch(z.netns, server) == "y"
        assert entries_of(node, gone) and entries_of(node, kept)
        node.delete(x)
        (node.controller.manifests / "x.yaml").unlink()
        eventually(lambda: not entries_of(node, gone), "its entries are deleted")
        assert entries_of(node, kept)
