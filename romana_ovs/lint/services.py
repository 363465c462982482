"""Checks Services that select no pod."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.lint.context import LintContext
from romana_ovs.lint.suggestions import explain
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.services import Service


def services_without_pods(context: LintContext) -> Iterator[Problem]:
    """Services whose selector matches no pod of their namespace, when labels like it are there."""
    for item in context.snapshot.objects:
        service = item.value
        if not isinstance(service, Service) or service.selector is None:
            continue
        pods = context.pods.get(service.namespace, ())
        if not pods or any(service.selector.matches(pod.labels) for pod in pods):
            continue
        explanation = explain(service.selector, [pod.labels for pod in pods], "pods")
        if explanation.suggestion and service.namespace not in context.incomplete_namespaces:
            reason = f"selects no pod of namespace {service.namespace}: {explanation}"
            yield item.location.problem("spec.selector", reason, Severity.INFO)
