"""Checks selectors of policies that select nobody: of their pods, of peers, and of namespaces."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from romana_ovs.lint.context import LintContext, PolicyObject, Rule
from romana_ovs.lint.dns import DNS_NAMESPACE, DNS_PORT
from romana_ovs.lint.suggestions import Explanation, contradiction, explain
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Operator, Selector
from romana_ovs.model.objects import NAME_LABEL, PolicyPeer, PolicyPort, RomanaPolicy
from romana_ovs.model.selector_text import selector_text
from romana_ovs.model.spelling import nearest
from romana_ovs.model.syntax import joined


def contradicting_selectors(context: LintContext) -> Iterator[Problem]:
    """Selectors that no labels can match."""
    for policy in context.policies:
        if reason := contradiction(policy.policy.selector):
            yield policy.warning("spec.podSelector", f"{reason}: it selects no pod, whatever its labels")
        for rule in policy.rules():
            for index, peer in enumerate(rule.peers):
                for field, selector in (("podSelector", peer.pods), ("namespaceSelector", peer.namespaces)):
                    if selector is not None and (reason := contradiction(selector)):
                        path = f"{rule.peer_path(index)}.{'pods' if rule.romana else field}"
                        yield policy.warning(path, f"{reason}: it matches nothing, whatever the labels")


def policies_without_pods(context: LintContext) -> Iterator[Problem]:
    """Policies that select no pod of their namespace, or only pods without a network of their own."""
    for policy in context.policies:
        if contradiction(policy.policy.selector):
            continue
        if not context.pods.get(policy.namespace):
            yield from _empty_namespace(context, policy)
        elif not policy.pods:
            explanation = _selects_nobody(context, policy)
            reason = f"selects no pod of namespace {policy.namespace}{explanation}"
            if policy.namespace in context.incomplete_namespaces:
                yield policy.note("spec.podSelector", f"{reason}; pods of workloads that are left out may be meant")
            elif explanation.known:
                yield policy.warning("spec.podSelector", reason)
            else:
                yield policy.note("spec.podSelector", f"{reason}; pods that are not in these manifests may be meant")
        elif all(pod.host_network for pod in policy.pods):
            names = joined([pod.name for pod in policy.pods])
            reason = f"selects only pods on the network of their node ({names}), to which no policy applies"
            yield policy.warning("spec.podSelector", reason)


def _empty_namespace(context: LintContext, policy: PolicyObject) -> Iterator[Problem]:
    """A namespace without pods is a mistake when it is not given, or like one that has pods."""
    others = sorted(name for name, pods in context.pods.items() if pods)
    if not others:
        return
    matching = [
        name for name in others if any(policy.policy.selector.matches(pod.labels) for pod in context.pods[name])
    ]
    if not policy.names_namespace:
        target = matching if policy.policy.selector.requirements and matching else others
        reason = f"is absent, so the policy is in namespace {policy.namespace}, which has no pods here; pods are in "
        yield policy.warning("metadata.namespace", reason + f"{joined(others)}{_namespace_hint(target)}")
    elif policy.policy.selector.requirements and matching:
        reason = (
            f"namespace {policy.namespace} has no pods here; pods with {selector_text(policy.policy.selector)} are in "
        )
        yield policy.warning("metadata.namespace", f"{reason}namespace {joined(matching)}")
    elif near := nearest(policy.namespace, others):
        yield policy.warning("metadata.namespace", f"namespace {policy.namespace} has no pods here; write {near}?")
    else:
        yield policy.note("metadata.namespace", f"namespace {policy.namespace} has no pods here")


def _namespace_hint(candidates: Collection[str]) -> str:
    """What metadata.namespace should be: the end of a sentence, empty unless there is one candidate.

    Namespace kube-system is none: it is the cluster's own, and hardly what a policy without a namespace is for.
    """
    names = [name for name in candidates if name != DNS_NAMESPACE]
    return f"; write namespace: {names[0]}?" if len(names) == 1 else ""


def _selects_nobody(context: LintContext, policy: PolicyObject) -> Explanation:
    """Why a policy selects no pod of its namespace, and what to write instead: the end of a sentence."""
    selector, namespace = policy.policy.selector, policy.namespace
    pods = context.pods[namespace]
    if hint := _template_hint(context, (namespace,), selector):
        return Explanation(f": {hint}")
    if isinstance(policy.policy, RomanaPolicy) and any(selector.matches(pod.labels) for pod in pods):
        return Explanation(" of its tenant: pods with these labels belong to other tenants")
    explanation = explain(selector, [pod.labels for pod in pods], "pods")
    elsewhere = [
        name
        for name, others in sorted(context.pods.items())
        if name != namespace and selector.requirements and any(selector.matches(pod.labels) for pod in others)
    ]
    if elsewhere and not policy.names_namespace:
        hint = f"metadata.namespace is absent, and such pods are in {joined(elsewhere)}"
        return Explanation(f": {explanation.reason}; {hint}{_namespace_hint(elsewhere)}")
    if elsewhere and not explanation.suggestion:
        hint = f"such pods are in namespace {joined(elsewhere)}, and a policy applies to its own namespace only"
        return Explanation(f": {explanation.reason}; {hint}")
    return explanation._replace(reason=f": {explanation.reason}")


def _template_hint(context: LintContext, namespaces: Collection[str], selector: Selector) -> str:
    """A hint for labels that a workload has itself, and its pods have not; empty when there is none."""
    for workload, labels, location in context.workloads:
        if workload.namespace in namespaces and selector.matches(labels) and not selector.matches(workload.labels):
            return (
                f"{selector_text(selector)} is in metadata.labels of {location.kind} {workload.name}, but its pods "
                "have the labels of spec.template.metadata.labels; add it there, or select one of these"
            )
    return ""


def peers_without_pods(context: LintContext) -> Iterator[Problem]:
    """Peers that mean no pod of the manifests."""
    if not context.pods:
        return
    for policy in context.policies:
        for rule in policy.rules():
            for index, peer in enumerate(rule.peers):
                yield from _peer(context, policy, rule, rule.peer_path(index), peer)


def _peer(context: LintContext, policy: PolicyObject, rule: Rule, path: str, peer: PolicyPeer) -> Iterator[Problem]:
    if peer.ip_block is not None or (peer.pods is None and peer.namespaces is None):
        return
    if any(contradiction(selector) for selector in (peer.pods, peer.namespaces) if selector is not None):
        return
    namespaces = context.peer_namespaces(policy.policy, peer)
    if peer.namespaces is not None and not namespaces:
        yield from _namespaces(context, policy, path, peer.namespaces)
        return
    candidates = [pod for pod in context.pods_in(namespaces) if not pod.host_network]
    if peer.pods is None or not candidates or any(context.peer_pods(policy.policy, peer)):
        return
    field = f"{path}.{'pods' if rule.romana else 'podSelector'}"
    on_nodes = [pod.name for pod in context.pods_in(namespaces) if peer.pods.matches(pod.labels)]
    if on_nodes and not rule.romana:
        reason = f"matches only pods on the network of their node ({joined(on_nodes)}), which selectors do not mean"
        yield policy.warning(field, f"{reason}; allow the addresses of the nodes by ipBlock")
        return
    if template := _template_hint(context, namespaces, peer.pods):
        yield policy.warning(field, f"matches no pod: {template}")
        return
    explanation = explain(peer.pods, [pod.labels for pod in candidates], "pods")
    matched = f"matches no pod of namespace{'s' if len(namespaces) > 1 else ''} {joined(list(namespaces))}"
    hint = "" if peer.namespaces is not None else _other_namespace(context, policy, peer.pods, rule.ports)
    if hint and not rule.romana:
        yield policy.warning(field, f"{matched}: {explanation.reason}; {hint}")
        return
    # Without a label like it, the peer may mean pods that are not among these manifests.
    if explanation.suggestion or context.incomplete_namespaces.isdisjoint(namespaces):
        finding = policy.warning if explanation.suggestion else policy.note
        yield finding(field, f"{matched}: {explanation}")


def _other_namespace(
    context: LintContext, policy: PolicyObject, selector: Selector, ports: tuple[PolicyPort, ...]
) -> str:
    """A hint for a podSelector alone whose pods are in another namespace, or empty."""
    elsewhere = [
        name
        for name, pods in sorted(context.pods.items())
        if name != policy.namespace and any(selector.matches(pod.labels) for pod in pods)
    ]
    if not elsewhere and any(port.port == DNS_PORT for port in ports) and policy.namespace != DNS_NAMESPACE:
        elsewhere = [DNS_NAMESPACE]
    if not elsewhere:
        return ""
    return (
        f"without namespaceSelector it means pods of namespace {policy.namespace} only; for those of "
        f"{joined(elsewhere)} add in the same item namespaceSelector: {{matchLabels: {{{NAME_LABEL}: {elsewhere[0]}}}}}"
    )


def _namespaces(context: LintContext, policy: PolicyObject, path: str, selector: Selector) -> Iterator[Problem]:
    """A namespaceSelector that matches no namespace of the manifests."""
    names = sorted({*context.cluster.namespaces, *context.pods})
    by_name = _wanted_name(selector, names)
    labels = [context.cluster.namespace_labels(name) for name in names]
    explanation = explain(selector, labels, "namespaces")
    if by_name:
        reason = f"matches no namespace: {explanation.reason}; every namespace has {NAME_LABEL} with its name; write "
        yield policy.warning(f"{path}.namespaceSelector", f"{reason}{NAME_LABEL}: {by_name}?")
    elif explanation.suggestion:
        yield policy.warning(f"{path}.namespaceSelector", f"matches no namespace: {explanation}")
    elif any(requirement.key != NAME_LABEL for requirement in selector.requirements):
        unknown = "" if context.declared_namespaces else " (no Namespace object is here, so labels are not known)"
        reason = f"matches no namespace of these manifests{unknown}: {explanation.reason}"
        yield policy.note(f"{path}.namespaceSelector", reason)


def _wanted_name(selector: Selector, names: list[str]) -> str:
    """The name of a namespace that another label than that of the name asks for, or empty."""
    for requirement in selector.requirements:
        if requirement.key != NAME_LABEL and requirement.operator is Operator.IN:
            for value in sorted(requirement.values):
                if value in (*names, DNS_NAMESPACE) and requirement.key in ("name", "namespace", "kubernetes.io/name"):
                    return value
    return ""
