"""Judges what a node needs beside its network: the configuration of its container runtime, and its clock."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.model.errors import Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.facts import CONFLIST, HostFacts, known
from romana_ovs.preflight.findings import Finding


def check_cni_configuration(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether container runtimes use our plugin, and have its programs. Raises UnreadFact."""
    if facts.cni is None:
        return
    configuration = known(facts.cni)
    for name in configuration.files:
        if name == CONFLIST:
            continue
        first = name < CONFLIST
        yield Finding(
            "cni-configuration",
            Severity.ERROR if first else Severity.WARNING,
            f"{configuration.folder}/{name}",
            f"it is of another network, and {'precedes' if first else 'takes the place of'} {CONFLIST}"
            f"{': pods get that network' if first else ' if that is gone'}",
            "Remove the file, and start the pods of this node anew.",
        )
    for program in configuration.missing:
        yield Finding(
            "cni-configuration",
            Severity.ERROR,
            f"plugin {program}",
            f"{CONFLIST} names it, and the folder of plugins does not have it, so no pod starts",
            "Install it there (containernetworking-plugins has portmap), or start romana-ovs attach with --no-portmap.",
        )


def check_clock(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether the clock is synchronized. Raises UnreadFact."""
    if not known(facts.clock_synchronized):
        yield Finding(
            "clock",
            Severity.INFO,
            "clock of this host",
            "no program synchronizes it; certificates and tokens of the API server count by it",
            "Start an NTP client, such as chrony or systemd-timesyncd (timedatectl shows it).",
        )
