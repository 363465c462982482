"""What the attach agent decides: names of devices, which mark counts, what is left over."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from romana_ovs.attach.attachment import (
    MAX_NONCE,
    Attachment,
    BridgeState,
    SandboxPort,
    device_name,
    device_stem,
    invalid_attachments,
    is_device_name,
    not_ready,
    second_interface,
    why_not_programmed,
    without_row,
)
from romana_ovs.model.objects import PodKey

ETH0 = Attachment("c1", "eth0")
POD = PodKey("a/x")
PORT = SandboxPort("rp1", POD, "uid-1", ETH0, "/run/netns/c1")
READY = BridgeState(connected=True, exists=True, controlled=True, secure=True)


def test_names_of_devices_fit_and_differ() -> None:
    names = {device_name(attachment, nonce) for attachment in (ETH0, Attachment("c1", "eth1")) for nonce in (0, 7)}
    assert len(names) == 4 and all(len(name) == 15 and is_device_name(name) for name in names)
    assert device_name(ETH0, MAX_NONCE + 7) == device_name(ETH0, 7)
    assert device_name(ETH0, 7).startswith(device_stem(ETH0))
    assert not is_device_name("rp0") and not is_device_name("eth0")


def test_a_mark_counts_for_the_pod_and_uid_of_the_port_only() -> None:
    for mark, address in (
        ("a/x 10.0.64.1 uid-1", IPv4Address("10.0.64.1")),
        ("a/x 10.0.64.1 uid-2", None),
        ("a/x 10.0.64.1", None),
        ("a/y 10.0.64.1 uid-1", None),
        ("a/x no-address uid-1", None),
        ("", None),
    ):
        assert replace(PORT, mark=mark).programmed_address == address
    assert replace(PORT, uid="", mark="a/x 10.0.64.1 uid-2").programmed_address == IPv4Address("10.0.64.1")


def test_the_first_thing_that_is_missing_is_named() -> None:
    assert not_ready(READY, "br-int") == ""
    for state, words in (
        (replace(READY, connected=False), "cannot be reached"),
        (replace(READY, exists=False), "has no bridge br-int"),
        (replace(READY, secure=False), "fail_mode=secure"),
        (replace(READY, controlled=False), "not connected to its controller"),
    ):
        assert words in not_ready(state, "br-int")
        assert words in why_not_programmed(state, "br-int", PORT)
    assert "cannot use the device: no such" in why_not_programmed(READY, "br-int", replace(PORT, error="no such"))
    assert why_not_programmed(READY, "br-int", replace(PORT, problem="why")) == "why"
    assert "has not programmed the port of pod a/x yet" in why_not_programmed(READY, "br-int", PORT)


def test_only_what_nobody_uses_is_left_over() -> None:
    names = [device_name(ETH0, nonce) for nonce in range(3)]
    state = replace(READY, ports={names[0]: PORT})
    assert without_row([*names, "veth0"], state, [names[1]]) == (names[2],)


def test_ports_of_other_programs_are_never_invalid() -> None:
    by_hand = SandboxPort("p", PodKey("a/y"))
    state = replace(READY, ports={"rp1": PORT, "p": by_hand})
    assert invalid_attachments(state, frozenset()) == (ETH0,)
    assert invalid_attachments(state, frozenset({ETH0})) == ()


def test_a_sandbox_has_one_device() -> None:
    state = replace(READY, ports={"rp1": PORT})
    assert second_interface(state, replace(PORT, attachment=Attachment("c1", "net1"))) == "eth0"
    assert second_interface(state, PORT) == ""
    assert second_interface(state, replace(PORT, attachment=Attachment("c2", "eth0"))) == ""
