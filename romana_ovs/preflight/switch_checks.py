"""Judges the Open vSwitch of a host: its version, what its datapath can do, and the settings of the bridge."""

from __future__ import annotations

import re
from collections.abc import Iterator

from romana_ovs.model.bridge import SERVICE_CONTROLLER
from romana_ovs.model.errors import Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.facts import USERSPACE, HostFacts, SwitchBridge, Unread, UnreadFact, known
from romana_ovs.preflight.findings import Finding

REQUIRED_VERSION = (3, 1)
"""The first with the message that deletes connections by their ends (NXT_CT_FLUSH; NEWS of Open vSwitch)."""
SCTP_VERSION = (3, 2)
"""The first whose userspace datapath tracks SCTP by ports (NEWS of Open vSwitch)."""
REQUIRED_FEATURES = (
    "Recirc",
    "Masked set action",
    "CT state",
    "CT zone",
    "CT mark",
    "CT label",
    "CT orig tuple",
    "Conntrack clear",
)
"""What the tables use of a datapath, by the names of `ovs-appctl dpif/show-dp-features`."""
PROTOCOL = "OpenFlow15"
DATAPATHS = ("system", USERSPACE)
OPENFLOW_PORT = 6653
"""Where a controller listens if its target has no port (vswitchd.conf.db(5))."""
_LOCAL_TARGET = re.compile(r"tcp:127\.[\d.]+(?::(\d+))?")
_VERSION = re.compile(r"(\d+)\.(\d+)")


def check_version(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """The version of ovs-vswitchd. Raises UnreadFact."""
    text = known(facts.version)
    numbers = _VERSION.search(text)
    if numbers is None:
        raise UnreadFact(f"{text!r} is no version")
    version = int(numbers[1]), int(numbers[2])
    if version < REQUIRED_VERSION:
        yield Finding(
            "switch-version",
            Severity.ERROR,
            f"Open vSwitch {text}",
            "it cannot delete the connections of a pod that has ended, so a later pod with its address inherits them",
            "Install Open vSwitch 3.1 or later.",
        )
    elif version < SCTP_VERSION and facts.userspace:
        yield Finding(
            "switch-version",
            Severity.INFO,
            f"Open vSwitch {text}",
            "its userspace datapath tracks SCTP by addresses, so ports of SCTP policies hold in one direction only",
            "Install Open vSwitch 3.2 or later if policies name SCTP.",
        )


def check_features(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """What the datapath of each bridge can do. Raises UnreadFact."""
    for bridge, features in known(facts.features).items():
        missing = [name for name in REQUIRED_FEATURES if features.get(name) == "No"]
        if missing:
            yield Finding(
                "datapath-features",
                Severity.ERROR,
                f"bridge {bridge}",
                f"its datapath lacks what the tables need ({', '.join(missing)})",
                "Use a newer kernel or Open vSwitch, or the other datapath (datapath_type).",
            )


def check_bridges(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """The settings of the controller's bridges, and whether there are any."""
    if isinstance(facts.bridges, Unread):
        yield Finding(
            "bridge",
            Severity.ERROR,
            "Open vSwitch",
            f"it cannot be asked: {facts.bridges.reason}",
            "Start it (systemctl start openvswitch-switch), or name its database with --ovsdb; this needs root.",
        )
        return
    bridges = facts.bridges
    if not bridges:
        yield Finding(
            "bridge",
            Severity.ERROR,
            "bridge br-int",
            "Open vSwitch has no bridge of the controller, neither br-int nor one with external_ids:romana-node",
            "Create it in one transaction with fail_mode=secure, as README.md shows.",
        )
    for bridge in bridges:
        yield from _bridge_findings(bridge)


def _bridge_findings(bridge: SwitchBridge) -> Iterator[Finding]:
    name = bridge.name
    faults = (
        (
            bridge.datapath not in DATAPATHS,
            Severity.ERROR,
            f"its datapath_type {bridge.datapath!r} is none of {', '.join(DATAPATHS)}",
            f"Run: ovs-vsctl set bridge {name} datapath_type=system (or netdev).",
        ),
        (
            bridge.fail_mode != "secure",
            Severity.ERROR,
            "it is not fail_mode=secure, so it forwards everything until a controller connects",
            f"Run: ovs-vsctl set-fail-mode {name} secure.",
        ),
        (
            bool(bridge.protocols) and PROTOCOL not in bridge.protocols,
            Severity.ERROR,
            f"its protocols are {', '.join(bridge.protocols)}, and the controller needs {PROTOCOL}",
            f"Run: ovs-vsctl set bridge {name} protocols={PROTOCOL}.",
        ),
        (
            _in_band(bridge),
            Severity.WARNING,
            "its controller is in-band, so hidden flows stand before those of the tables",
            f"Run: ovs-vsctl set controller {name} connection_mode=out-of-band.",
        ),
        (
            any(each.type != SERVICE_CONTROLLER for each in bridge.controllers),
            Severity.WARNING,
            "its controller is not of type service, so Open vSwitch deletes all flows in the course of an upgrade",
            f"Run: ovs-vsctl set controller {name} type=service.",
        ),
    )
    for applies, severity, reason, action in faults:
        if applies:
            yield Finding("bridge", severity, f"bridge {name}", reason, action)


def _in_band(bridge: SwitchBridge) -> bool:
    """Whether a controller over TCP or SSL has no channel of its own (vswitchd.conf.db(5), in-band)."""
    return not bridge.in_band_disabled and any(
        not each.target.startswith(("unix:", "punix:")) and each.connection_mode != "out-of-band"
        for each in bridge.controllers
    )


def check_controller(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether each bridge is connected to its controller. Raises UnreadFact."""
    for bridge in known(facts.bridges):
        if not bridge.controllers:
            yield Finding(
                "controller",
                Severity.ERROR,
                f"bridge {bridge.name}",
                "it has no controller, so nothing programs its tables",
                f"Run: ovs-vsctl set-controller {bridge.name} tcp:127.0.0.1:6653.",
            )
        for target in (each.target for each in bridge.controllers if not each.connected):
            yield Finding(
                "controller",
                Severity.WARNING,
                f"bridge {bridge.name}",
                f"it is not connected to its controller {target}{_who_listens(facts, target)}; its tables stay as they "
                "are",
                "Start the controller, and see its log and that of ovs-vswitchd for the reason.",
            )


def _who_listens(facts: HostFacts, target: str) -> str:
    """Whether a program of this host listens at `target`, as a part of a sentence; empty when that is not known."""
    local = _LOCAL_TARGET.fullmatch(target)
    if local is None or isinstance(facts.listening, Unread):
        return ""
    if int(local[1] or OPENFLOW_PORT) in facts.listening:
        return ", though a program listens there, maybe another one"
    return ", as no program listens there"
