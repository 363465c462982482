"""Implements `romana-ovs check DIR`: prints every problem of a folder of manifests, and notes on it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from romana_ovs.cli.addresses import saved_state
from romana_ovs.cli.common import add_folder, load, print_json, problem_row
from romana_ovs.cli.left_out import pod_notes, workload_notes
from romana_ovs.cli.progress import activity
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.lint import lint
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.objects import PodKey, names_sctp
from romana_ovs.model.syntax import joined

HELP = "Validate a folder of manifests: every problem in one run. Exit code 1 if there are any."

NAMED_POLICIES = 5
"""How many policies a note names; further ones are counted."""
ADDRESS_FIELD = "status.podIP"
"""A finding about this field says why the pod's address cannot be used."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `check`."""
    add_folder(parser)


def run(args: argparse.Namespace) -> int:
    """Print all problems and notes. Returns exit code 1 if there are problems (with `--strict` also notes), else 0."""
    loaded = load(args.dir, nodes=args.nodes, recursive=args.recursive)
    findings = [*loaded.problems, *loaded.unsupported, *loaded.notes, *workload_notes(loaded), *lint(loaded)]
    with activity(f"allocating the addresses of {len(loaded.cluster.pods)} pods"):
        unallocated = list(allocation_problems(loaded, saved_state(args.state)))
    explained = {
        _object_of(problem)
        for problem in findings
        if problem.severity is Severity.ERROR or problem.field.endswith(ADDRESS_FIELD)
    }
    findings += [problem for problem in unallocated if _object_of(problem) not in explained]
    pods, general = list(pod_notes(loaded)), general_notes(loaded)
    problems = [problem for problem in findings if problem.severity is not Severity.INFO]
    notes = [problem for problem in findings if problem.severity is Severity.INFO]
    if args.json:
        print_json([problem_row(problem) for problem in (*findings, *pods, *(general if args.strict else ()))])
    else:
        _print_tables(problems, notes)
        if not problems:
            print(_summary(loaded))
        for note in (*pods, *general):
            print(note.reason, file=sys.stderr)
    return 1 if problems or (args.strict and (notes or pods or general)) else 0


def general_notes(loaded: ClusterSnapshot) -> list[Problem]:
    """Notes about the folder as a whole: the kinds that have no effect, and SCTP."""
    reasons = [f"Ignored kinds: {', '.join(loaded.ignored)}."] if loaded.ignored else []
    reasons += [note] if (note := sctp_note(loaded)) else []
    return [Problem(reason, severity=Severity.INFO) for reason in reasons]


def sctp_note(loaded: ClusterSnapshot) -> str:
    """A note on what SCTP policies may leave open, empty when no policy names SCTP.

    It is not a problem of the manifests: it depends on the switches, which only the controller knows.
    """
    names = sorted(f"{key.namespace}/{key.name}" for key, one in loaded.cluster.policies.items() if names_sctp(one))
    if not names:
        return ""
    return (
        f"Policies name SCTP: {joined(names, NAMED_POLICIES)}. Where a switch tracks it by addresses alone "
        "(Open vSwitch before 3.2, userspace), a server that a client has sent SCTP to can open associations to any of "
        "its ports."
    )


def allocation_problems(loaded: ClusterSnapshot, state: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Problems of pods and nodes for which the address plan has no number left; `state` is that of `saved_state`.

    Raises AddressError when the plan itself is invalid.
    """
    from romana_ovs.engine import offline  # imported here: slow, and not needed to import this module

    for problem in offline(loaded.cluster, state)[0].problems:
        place = loaded.locations.get(PodKey(problem.name)) if problem.kind == "Pod" else None
        if place is None:
            yield problem
        else:
            yield place.problem("", problem.reason if place.kind == "Pod" else f"pod {problem.name}: {problem.reason}")


def _object_of(problem: Problem) -> tuple[str, int, str, str]:
    return problem.file, problem.document, problem.kind, problem.name


def _print_tables(problems: list[Problem], notes: list[Problem]) -> None:
    for title, rows in (("problem", problems), ("note", notes)):
        if rows:
            _print_table(f"{len(rows)} {title}{'s' if len(rows) > 1 else ''}", rows)


def _print_table(title: str, problems: list[Problem]) -> None:
    # Imported here: slow, and not needed without problems or for JSON.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", expand=True)
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
