"""Checks workloads: what Kubernetes refuses about pod templates although it does not concern the network."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.lint.context import LintContext
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.syntax import shown

_ALWAYS = ("Always",)
_OF_JOBS = ("Never", "OnFailure")


def restart_policies(context: LintContext) -> Iterator[Problem]:
    """Restart policies that the kind does not allow: Jobs need one, all others have Always."""
    for workload, _, location in context.workloads:
        if not workload.built_in:
            continue
        policy, allowed = workload.restart_policy, _OF_JOBS if workload.controller_kind == "Job" else _ALWAYS
        if policy not in allowed and (policy or workload.controller_kind == "Job"):
            given = f"not {shown(policy)}" if policy else "and is Always when absent"
            reason = f"must be {' or '.join(allowed)}, {given}: the API server refuses this {workload.kind}"
            yield location.problem(f"{workload.template_path}.spec.restartPolicy", reason, Severity.WARNING)
