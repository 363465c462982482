"""Lists all checks, and runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.lint import pods
from romana_ovs.lint.context import LintContext
from romana_ovs.model.errors import Problem

Check = Callable[[LintContext], Iterator[Problem]]
"""A check: yields a problem of severity `warning` or `info` for each place that it finds."""

CHECKS: tuple[Check, ...] = (
    pods.without_tenant,
    pods.shared_addresses,
)


def lint(snapshot: ClusterSnapshot) -> tuple[Problem, ...]:
    """The findings of all checks, each once, in the order of `CHECKS`."""
    context = LintContext.of(snapshot)
    return tuple(dict.fromkeys(problem for check in CHECKS for problem in check(context)))
