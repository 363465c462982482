"""Judges the addresses of the cluster against the pods' network: ranges of Services, and addresses of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from romana_ovs.addressing.overlaps import overlaps
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.errors import AddressError, Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.facts import HostFacts, UnreadFact, known
from romana_ovs.preflight.findings import Finding


def check_cluster_addresses(facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """Whether Services or nodes have addresses of the pods' network. Raises UnreadFact."""
    if facts.cluster is None:
        return
    cluster = replace(known(facts.cluster), settings=settings)
    try:
        plan = AddressPlan.of(settings)
    except AddressError as error:
        raise UnreadFact(str(error)) from error
    for problem in overlaps(cluster, plan):
        reason, _, action = problem.reason.partition(". ")
        yield Finding("cluster-addresses", Severity.ERROR, f"{problem.kind} {problem.name}", reason, f"{action}.")
