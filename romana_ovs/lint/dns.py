"""Checks egress policies for what most pods need: DNS over UDP and TCP, and the API server."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.lint.context import LintContext, PolicyObject, Rule
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import NAME_LABEL, Direction, PolicyPort, Protocol

DNS_PORT = 53
DNS_NAMESPACE = "kube-system"
API_PORTS = (443, 6443)
_DNS_LABEL, _DNS_VALUES = "k8s-app", ("kube-dns", "coredns", "node-local-dns")
_CONTROLLERS = ("-system", "-operator", "-controller")
"""Ends of names of namespaces whose pods are clients of the API server."""
_NAMED = {"dns": Protocol.UDP, "dns-tcp": Protocol.TCP}
"""The port names of CoreDNS in the manifests of kubeadm, kOps and others."""


def one_protocol(context: LintContext) -> Iterator[Problem]:
    """Rules that allow DNS over one of UDP and TCP, when no rule for the same pods allows the other."""
    for policy in context.policies:
        for rule in policy.policy_rules(Direction.EGRESS):
            allowed = {protocol for port in rule.ports for protocol in _dns(port)}
            if len(allowed) != 1:
                continue
            missing = Protocol.UDP if Protocol.TCP in allowed else Protocol.TCP
            if missing in {protocol for other in _rules(context, policy) for protocol in _protocols(other)}:
                continue
            entry = f"add {{protocol: {missing.name}, port: {DNS_PORT}}}"
            if missing is Protocol.UDP:
                reason = f"allows DNS over TCP only (without protocol it is TCP), and clients begin with UDP; {entry}"
                yield policy.warning(f"{rule.path}.ports", reason)
            else:
                reason = f"allows DNS over UDP only: answers that do not fit are asked for again over TCP; {entry}"
                yield policy.note(f"{rule.path}.ports", reason)


def own_namespace(context: LintContext) -> Iterator[Problem]:
    """Rules for DNS whose peers are pods of the policy's namespace only, none of which serves DNS."""
    for policy in context.policies:
        for rule in policy.policy_rules(Direction.EGRESS):
            inside = all(peer.namespaces is None and peer.ip_block is None for peer in rule.peers)
            if not rule.ports or not rule.peers or not inside or not all(map(_dns, rule.ports)):
                continue
            pods = [pod for peer in rule.peers for pod in context.peer_pods(policy.policy, peer)]
            if not pods or any(port.number == DNS_PORT for pod in pods for port in pod.ports):
                continue
            if any(pod.labels.get(_DNS_LABEL) in _DNS_VALUES for pod in pods):
                continue
            reason = (
                f"allows DNS to pods of namespace {policy.namespace} only, and none of them serves it; for the DNS of "
                f"the cluster add in each item namespaceSelector: {{matchLabels: {{{NAME_LABEL}: {DNS_NAMESPACE}}}}}"
            )
            yield policy.warning(f"{rule.path}.to", reason)


def egress_without_dns(context: LintContext) -> Iterator[Problem]:
    """Policies that isolate pods for egress, when no policy lets these reach DNS, or the API server.

    The API server counts where DNS is cut, too, and in namespaces of controllers: most other pods do not need it.
    """
    for policy in context.policies:
        pods = [pod for pod in policy.pods if not pod.host_network and pod.labels.get(_DNS_LABEL) not in _DNS_VALUES]
        if not policy.isolates(Direction.EGRESS) or not pods:
            continue
        rules = list(_rules(context, policy))
        no_dns = not any(_protocols(rule) for rule in rules)
        no_api = (no_dns or policy.namespace.endswith(_CONTROLLERS)) and not any(_reaches_api(rule) for rule in rules)
        own = policy.policy_rules(Direction.EGRESS)
        if not rules and policy.policy_rules(Direction.INGRESS):
            reason = (
                "lists Egress, and no policy has an egress rule for its pods: they may open no connection, not even "
            )
            yield policy.note("spec.policyTypes", reason + "for DNS; remove Egress if only ingress is meant")
        elif no_dns or no_api:
            needs = (("DNS (port 53 of UDP and TCP)", no_dns), ("the API server (port 443 or 6443)", no_api))
            cut = " and ".join(text for text, lacks in needs if lacks)
            reason = f"its pods cannot reach {cut}: no egress rule of any policy for them allows it"
            yield policy.note("spec.egress" if own else "spec.policyTypes", reason)


def _rules(context: LintContext, policy: PolicyObject) -> Iterator[Rule]:
    """The egress rules of all policies that select any of the policy's pods."""
    for one in context.selecting(policy):
        yield from one.policy_rules(Direction.EGRESS)


def _protocols(rule: Rule) -> set[Protocol]:
    """The protocols over which a rule may allow DNS. A rule without ports has every port of its peers."""
    if not rule.ports:
        return {Protocol.UDP, Protocol.TCP}
    wide = {port.protocol for port in rule.ports if port.covers(DNS_PORT) and port.protocol is not Protocol.SCTP}
    return wide.union(*map(_dns, rule.ports))


def _dns(port: PolicyPort) -> set[Protocol]:
    """The protocol of a port that is for DNS alone: port 53, or its name. A range with 53 is hardly about DNS."""
    if isinstance(port.port, str):
        known = _NAMED.get(port.port)
        return {known} if known is port.protocol else set()
    exact = port.port == DNS_PORT and port.end in (None, DNS_PORT)
    return {port.protocol} if exact and port.protocol is not Protocol.SCTP else set()


def _reaches_api(rule: Rule) -> bool:
    """Whether a rule may allow the API server, which is no pod that a selector matches but in some clusters."""
    outside = not rule.peers or any(peer.ip_block is not None for peer in rule.peers)
    ports = not rule.ports or any(
        port.protocol is Protocol.TCP and (isinstance(port.port, str) or any(port.covers(one) for one in API_PORTS))
        for port in rule.ports
    )
    return outside and ports
