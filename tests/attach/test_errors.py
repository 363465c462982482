"""Every row of the table of errors of the CNI specification 1.1.0, played as a runtime does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cni_node import EMPTY, CniNode, Sandbox, cni_node, needs_plugin
from tests.support.netns_sockets import run
from tests.support.private_ovs import needs_ovs

pytestmark = [pytest.mark.root, needs_ovs, needs_plugin]


@pytest.fixture(scope="module")
def node() -> Iterator[CniNode]:
    """A node with pod x to attach."""
    with cni_node("x") as running:
        yield running


@pytest.fixture
def x(node: CniNode) -> Iterator[Sandbox]:
    """A sandbox of x; after the test nothing of it may be left, as an ADD that failed leaves nothing."""
    sandbox = node.sandbox("x")
    yield sandbox
    node.assert_nothing_left()


def test_1_another_version_of_the_specification(node: CniNode, x: Sandbox) -> None:
    for version in ("0.3.1", "9.9.9"):
        assert node.call("ADD", x, node.config(cniVersion=version)).code == 1


def test_1_verbs_that_a_version_does_not_have(node: CniNode, x: Sandbox) -> None:
    assert node.call("STATUS", None, node.config(cniVersion="1.0.0")).code == 1
    assert node.call("GC", None, node.config(cniVersion="1.0.0")).code == 1


def test_2_a_field_that_is_not_supported_is_named_with_its_value(node: CniNode, x: Sandbox) -> None:
    answer = node.call("ADD", x, node.config(ipam={"type": "host-local"}))
    assert answer.code == 2 and "ipam" in answer.printed["msg"] and "host-local" in answer.printed["msg"]


def test_3_a_container_that_does_not_exist(node: CniNode, x: Sandbox) -> None:
    assert node.call("ADD", x, CNI_NETNS="/run/netns/none").code == 3
    assert node.call("ADD", x, CNI_NETNS="/proc/self/ns/uts").code == 3
    assert node.call("ADD", x, CNI_NETNS="/etc/hostname").code == 3


@pytest.mark.parametrize("missing", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"])
def test_4_a_variable_that_is_missing_is_named(node: CniNode, x: Sandbox, missing: str) -> None:
    answer = node.call("ADD", x, **{missing: None})
    assert answer.code == 4 and missing in answer.printed["msg"]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CNI_CONTAINERID", "../etc"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_IFNAME", "../../etc"),
        ("CNI_IFNAME", "a-name-that-is-too-long"),
        ("CNI_IFNAME", "lo"),
        ("CNI_NETNS", "run/netns/x"),
        ("CNI_NETNS", "/run/netns/../../etc"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=../x;K8S_POD_UID=1"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=x;K8S_POD_UID=1 2"),
    ],
)
def test_4_a_variable_that_is_invalid(node: CniNode, x: Sandbox, variable: str, text: str) -> None:
    """docs/hazards.md E6"""
    assert node.call("ADD", x, **{variable: text}).code == 4


def test_4_a_second_device_for_a_pods_one_address(node: CniNode, x: Sandbox) -> None:
    node.add(x)
    answer = node.call("ADD", x, CNI_IFNAME="net1")
    assert answer.code == 4 and "has one address" in answer.printed["msg"]
    node.delete(x, CNI_IFNAME="net1")
    assert node.call("CHECK", x, node.config(prevResult=EMPTY)).code == 101
    assert len(node.ports()) == 1
    node.delete(x)


def test_5_standard_input_that_cannot_be_read(node: CniNode, x: Sandbox) -> None:
    with open("/proc/self/mem", "rb") as unreadable:
        done = subprocess.run(
            [node.plugin], env=node.variables("ADD", x), stdin=unreadable, capture_output=True, check=False, timeout=60
        )
    assert done.returncode == 1 and json.loads(done.stdout)["code"] == 5


def test_6_a_configuration_that_is_not_json(node: CniNode, x: Sandbox) -> None:
    for text in ("{", "", "[]", '"x"'):
        assert node.call("ADD", x, stdin=text).code == 6


@pytest.mark.parametrize(
    "changes",
    [{"name": None}, {"name": "../x"}, {"socket": None}, {"socket": "run/attach.sock"}, {"queue": 7}, {"queue": ""}],
)
def test_7_a_configuration_that_is_invalid(node: CniNode, x: Sandbox, changes: dict[str, Any]) -> None:
    assert node.call("ADD", x, node.config(**changes)).code in (6, 7)
    if "name" not in changes:
        assert node.call("ADD", x, node.config(**changes)).code == 7


def test_7_check_without_the_result_of_add(node: CniNode, x: Sandbox) -> None:
    assert node.call("CHECK", x).code == 7
    assert node.call("CHECK", x, node.config(prevResult={"cniVersion": "0.0"})).code == 7


def test_7_gc_without_a_list_keeps_everything(node: CniNode, x: Sandbox) -> None:
    node.add(x)
    assert node.call("GC").code == 7
    unreadable: tuple[object, ...] = ("", {}, [{"containerID": x.container}], ["x"])
    for listed in unreadable:
        assert node.call("GC", None, node.config(**{"cni.dev/valid-attachments": listed})).code in (6, 7)
    assert len(node.ports()) == 1
    node.delete(x)


def test_11_a_pod_that_the_controller_does_not_know(node: CniNode) -> None:
    node.stop_agent()
    node.start_agent("--wait", "1")
    node.until_ready()
    stranger = node.sandbox("stranger")
    answer = node.call("ADD", stranger)
    assert answer.code == 11 and "a port claims pod a/stranger of UID stranger-1" in answer.printed["msg"]
    assert "there is no such pod" in answer.printed["msg"]
    node.assert_nothing_left()


def test_100_a_device_of_that_name_exists(node: CniNode, x: Sandbox) -> None:
    run(x.netns, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    assert node.call("ADD", x).code == 100
    assert "eth0@other" in run(x.netns, "ip", "link", "show", "eth0").stdout


def test_no_verb_and_unknown_verbs(node: CniNode, x: Sandbox) -> None:
    assert node.call("UPDATE", x).code == 4
    done = subprocess.run([node.plugin], env={}, input="", capture_output=True, text=True, check=False, timeout=60)
    assert "romana-cni" in done.stderr and "1.1.0" in done.stderr


def test_version_needs_no_agent_and_no_configuration(node: CniNode) -> None:
    answer = node.call("VERSION", stdin="")
    assert answer.printed == {"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}
