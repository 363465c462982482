"""Implements `romana-ovs check DIR`: prints every problem of a folder of manifests."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from romana_ovs.cli.addresses import saved_state
from romana_ovs.cli.common import add_folder, load, print_json
from romana_ovs.cli.progress import activity
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import PodKey, names_sctp
from romana_ovs.model.settings import TenantSource

HELP = "Validate a folder of manifests: every problem in one run. Exit code 1 if there are any."

NAMED_POLICIES = 5
"""How many policies a note names; further ones are counted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `check`."""
    add_folder(parser)


def run(args: argparse.Namespace) -> int:
    """Print all problems. Returns exit code 1 if there are any, else 0."""
    loaded = load(args.dir, nodes=args.nodes)
    problems = [*loaded.problems, *advice(loaded)]
    reported = {(problem.file, problem.kind, problem.name) for problem in problems}
    with activity(f"allocating the addresses of {len(loaded.cluster.pods)} pods"):
        unallocated = list(allocation_problems(loaded, saved_state(args.state)))
    problems += [problem for problem in unallocated if (problem.file, problem.kind, problem.name) not in reported]
    if args.json:
        print_json([_row(problem) for problem in problems])
    elif problems:
        _print_table(problems)
    else:
        print(_summary(loaded))
    if loaded.ignored and not args.json:
        print(f"Ignored kinds: {', '.join(loaded.ignored)}.", file=sys.stderr)
    if (note := sctp_note(loaded)) and not args.json:
        print(note, file=sys.stderr)
    return 1 if problems else 0


def sctp_note(loaded: ClusterSnapshot) -> str:
    """A note on what SCTP policies may leave open, empty when no policy names SCTP.

    It is not a problem of the manifests: it depends on the switches, which only the controller knows.
    """
    names = sorted(f"{key.namespace}/{key.name}" for key, one in loaded.cluster.policies.items() if names_sctp(one))
    if not names:
        return ""
    more = f" and {len(names) - NAMED_POLICIES} more" if len(names) > NAMED_POLICIES else ""
    return (
        f"Policies name SCTP: {', '.join(names[:NAMED_POLICIES])}{more}: where a switch tracks it by addresses alone "
        "(Open vSwitch before 3.2, userspace), a server that a client has sent SCTP to can open associations to any of "
        "its ports."
    )


def advice(loaded: ClusterSnapshot) -> Iterator[Problem]:
    """Problems that are valid but probably not intended: pods without a tenant, pods with the same address."""
    yield from dict.fromkeys(_tenantless(loaded))
    yield from _shared_addresses(loaded)


def _tenantless(loaded: ClusterSnapshot) -> Iterator[Problem]:
    settings = loaded.cluster.settings
    missing = f"label {settings.tenant_key}"
    if settings.tenant_source is TenantSource.NAMESPACE_LABEL:
        missing += " of its namespace"
    for key, pod in loaded.cluster.pods.items():
        if pod.networked and loaded.cluster.tenant_of(pod) == NO_TENANT:
            place = loaded.locations[key]
            field = "metadata.labels" if place.kind == "Pod" else "spec.template.metadata.labels"
            yield place.problem(field, f"no tenant: {missing} is absent, so it talks with its own node only")


def _shared_addresses(loaded: ClusterSnapshot) -> Iterator[Problem]:
    holders: dict[object, list[PodKey]] = defaultdict(list)
    for key, pod in loaded.cluster.pods.items():
        if pod.networked and pod.address is not None:
            holders[pod.address].append(key)
    for address, keys in holders.items():
        for key in keys[1:]:
            yield loaded.locations[key].problem("status.podIP", f"{address} is the address of pod {keys[0]} too")


def allocation_problems(loaded: ClusterSnapshot, state: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Problems of pods and nodes for which the address plan has no number left; `state` is that of `saved_state`.

    Raises AddressError when the plan itself is invalid.
    """
    from romana_ovs.engine import offline  # imported here: slow, and `advice` does not need it

    for problem in offline(loaded.cluster, state)[0].problems:
        place = loaded.locations.get(PodKey(problem.name)) if problem.kind == "Pod" else None
        if place is None:
            yield problem
        else:
            yield place.problem("", problem.reason if place.kind == "Pod" else f"pod {problem.name}: {problem.reason}")


def _row(problem: Problem) -> dict[str, object]:
    return {
        "file": problem.file,
        "document": problem.document,
        "kind": problem.kind,
        "name": problem.name,
        "field": problem.field,
        "problem": problem.reason,
    }


def _print_table(problems: list[Problem]) -> None:
    # Imported here: slow, and not needed without problems or for JSON.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", title_justify="left", expand=True)
    table.add_column("where", ratio=5, overflow="fold")
    table.add_column("object", ratio=4, overflow="fold")
    table.add_column("problem", ratio=9, overflow="fold")
    for problem in problems:
        where = f"{problem.file} #{problem.document}" if problem.document else problem.file
        reason = f"{problem.field}: {problem.reason}" if problem.field else problem.reason
        table.add_row(Text(where), Text(f"{problem.kind} {problem.name}".strip()), Text(reason))
    Console(highlight=False, soft_wrap=False).print(table)


def _summary(loaded: ClusterSnapshot) -> str:
    cluster = loaded.cluster
    counts = (
        (len(cluster.pods), "pod", "pods"),
        (len(cluster.policies), "policy", "policies"),
        (len(cluster.namespaces), "namespace", "namespaces"),
    )
    return "No problems: " + ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts) + "."
