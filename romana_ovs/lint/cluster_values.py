"""Checks policies that select by labels whose values only a cluster makes: hashes, UIDs, names of a CronJob's Jobs."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.kube.decode.controller_labels import JOB_NAME, UNKNOWN, VALUES_OF_A_CLUSTER
from romana_ovs.lint.context import LintContext, PolicyObject
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Operator, Requirement


def values_of_a_cluster(context: LintContext) -> Iterator[Problem]:
    """Selectors that name a value of a label that workloads' pods have only in a cluster."""
    unknown = {
        key for pod in context.cluster.pods.values() for key in VALUES_OF_A_CLUSTER if pod.labels.get(key) == UNKNOWN
    }
    for policy in context.policies if unknown else ():
        for path, requirement in _requirements(policy):
            if requirement.key in unknown and requirement.values:
                effect = "matches none" if requirement.operator is Operator.IN else "matches all"
                reason = (
                    f"values of {requirement.key} are made in a cluster and change there, so this {effect} of the pods "
                    "that workloads have here: select by labels of their templates"
                )
                yield policy.note(path, reason)


def names_of_cron_jobs(context: LintContext) -> Iterator[Problem]:
    """Selectors by job-name that name a CronJob: its Jobs have other names."""
    workloads = [workload for workload, _, _ in context.workloads]
    jobs = {one.name for one in workloads if one.kind == "Job"}
    cron_jobs = {one.name for one in workloads if one.kind == "CronJob"} - jobs
    for policy in context.policies if cron_jobs else ():
        for path, requirement in _requirements(policy):
            if requirement.key in JOB_NAME and requirement.operator is Operator.IN:
                for name in sorted(requirement.values & cron_jobs):
                    reason = (
                        f"{requirement.key} is never {name} for pods of CronJob {name}, as their Job is called {name}- "
                        "and a time: select by labels of spec.jobTemplate.spec.template"
                    )
                    yield policy.warning(path, reason)


def _requirements(policy: PolicyObject) -> Iterator[tuple[str, Requirement]]:
    """The label requirements on pods in a policy, with the path of their selector."""
    yield from (("spec.podSelector", requirement) for requirement in policy.policy.selector.requirements)
    for rule in policy.rules():
        for index, peer in enumerate(rule.peers):
            path = f"{rule.peer_path(index)}.{'pods' if rule.romana else 'podSelector'}"
            yield from ((path, requirement) for requirement in (peer.pods.requirements if peer.pods else ()))
