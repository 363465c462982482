"""Lists all checks, and runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.lint import cluster_values, dns, effect, peers, pods, ports, selectors, services, tenants, workloads
from romana_ovs.lint.context import LintContext
from romana_ovs.model.errors import Problem

Check = Callable[[LintContext], Iterator[Problem]]
"""A check: yields a problem of severity `warning` or `info` for each place that it finds."""

CHECKS: tuple[Check, ...] = (
    pods.without_tenant,
    pods.shared_addresses,
    pods.notes_of_objects,
    selectors.contradicting_selectors,
    selectors.policies_without_pods,
    selectors.peers_without_pods,
    ports.undeclared_ports,
    tenants.separate_tenants,
    peers.split_peers,
    peers.blocks_of_the_cluster,
    peers.host_bits,
    effect.unused_rules,
    effect.empty_peer_lists,
    effect.duplicate_policies,
    effect.redundant_policies,
    effect.open_to_all,
    dns.one_protocol,
    dns.own_namespace,
    dns.egress_without_dns,
    services.services_without_pods,
    cluster_values.values_of_a_cluster,
    cluster_values.names_of_cron_jobs,
    workloads.restart_policies,
)


def lint(snapshot: ClusterSnapshot) -> tuple[Problem, ...]:
    """The findings of all checks, each once, in the order of `CHECKS`."""
    context = LintContext.of(snapshot)
    return tuple(dict.fromkeys(problem for check in CHECKS for problem in check(context)))
