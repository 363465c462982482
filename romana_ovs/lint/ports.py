"""Checks ports of policies: names that no pod declares, numbers of Services, and numbers that no pod declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from romana_ovs.lint.context import LintContext, PolicyObject, Rule
from romana_ovs.lint.dns import DNS_PORT
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Direction, Pod, PolicyPort
from romana_ovs.model.services import Service, ServicePort
from romana_ovs.model.spelling import nearest
from romana_ovs.model.syntax import joined


def undeclared_ports(context: LintContext) -> Iterator[Problem]:
    """Ports that no pod to which a rule opens connections declares."""
    for policy in context.policies:
        for rule in policy.rules():
            servers = _servers(context, policy, rule)
            for index, port in enumerate(rule.ports):
                if isinstance(port.port, str):
                    yield from _name(context, policy, rule, index, servers)
                elif port.port is not None:
                    yield from _number(context, policy, rule, index, servers)


def _servers(context: LintContext, policy: PolicyObject, rule: Rule) -> Sequence[Pod]:
    """The pods to which the rule opens connections; none when they may be outside of these manifests."""
    if rule.direction is Direction.INGRESS:
        return policy.pods
    if any(peer.ip_block is not None for peer in rule.peers):
        return ()
    if not rule.peers:
        return [pod for pod in context.pods_in(context.pods) if not pod.host_network]
    groups = [list(context.peer_pods(policy.policy, peer)) for peer in rule.peers]
    # Peers that match nobody may mean pods that are not in the manifests, such as those of kube-system.
    return [pod for group in groups for pod in group] if all(groups) else ()


def _name(
    context: LintContext, policy: PolicyObject, rule: Rule, index: int, servers: Sequence[Pod]
) -> Iterator[Problem]:
    """A port name that none of `servers` declares for the protocol.

    Where the pods that are meant may be outside of these manifests, only a name like one that there is.
    """
    port, path = rule.ports[index], f"{rule.port_path(index)}.port"
    known = servers or (context.pods.get(policy.namespace, ()) if rule.direction is Direction.INGRESS else ())
    certain = bool(servers) and (rule.direction is Direction.INGRESS or bool(rule.peers))
    declared = {(one.name, one.protocol) for pod in known for one in pod.ports if one.name}
    name = str(port.port)
    if not known or (name, port.protocol) in declared:
        return
    other = sorted({protocol.name for one, protocol in declared if one == name})
    names = sorted({one for one, protocol in declared if protocol is port.protocol})
    near = nearest(name, names)
    if other:
        reason = f"port {name} is declared for {joined(other)}, not for {port.protocol.name}"
        yield policy.warning(path, f"{reason}; write protocol: {other[0]}?")
    elif certain or near:
        there = f" (there {'is' if len(names) == 1 else 'are'} {joined(names)})" if names else ""
        hint = f"; write port: {near}?" if near else ""
        yield policy.warning(path, f"no pod declares a port named {name}{there}, so it opens nothing{hint}")


def _number(
    context: LintContext, policy: PolicyObject, rule: Rule, index: int, servers: Sequence[Pod]
) -> Iterator[Problem]:
    """A number that none of `servers` declares: that of a Service, or one where all of them declare others.

    Declaring ports is optional, so that a number which only some pods lack means nothing. DNS has checks of its own
    (`dns`), but for servers behind a Service that listen on another port, as those of OpenShift on 5353.
    """
    port, path = rule.ports[index], f"{rule.port_path(index)}.port"
    declared = [[one.number for one in pod.ports if one.protocol is port.protocol] for pod in servers]
    if any(port.covers(number) for group in declared for number in group):
        return
    match = _service_port(context, port, servers)
    if match is not None and not _allows_target(rule, match[1], servers):
        service, mapped = match
        reason = f"{port.port} is a port of Service {service}, but policies see the port of its pods, {mapped.target}; "
        yield policy.warning(path, f"{reason}write port: {mapped.target}?")
    elif port.port != DNS_PORT and declared and all(declared):
        there = joined([f"{number}" for number in sorted({number for group in declared for number in group})])
        text = f"{port.port}" if port.end is None else f"{port.port}-{port.end}"
        reason = f"no pod that it concerns declares {text}/{port.protocol.value}; they declare {there}"
        yield policy.note(path, reason)


def _allows_target(rule: Rule, mapped: ServicePort, servers: Sequence[Pod]) -> bool:
    """Whether the rule also has the port of the pods to which a Service translates its own, by name or by number."""
    declared = {one.number for pod in servers for one in pod.ports if one.name == mapped.target}
    return any(port.covers(target) for port in rule.ports for target in (mapped.target, *declared))


def _service_port(context: LintContext, port: PolicyPort, servers: Sequence[Pod]) -> tuple[Service, ServicePort] | None:
    """The Service of one of `servers` that has this port and translates it to another one."""
    for service in context.services:
        for mapped in service.ports:
            if (mapped.number, mapped.protocol) != (port.port, port.protocol) or mapped.target == mapped.number:
                continue
            if any(
                pod.namespace == service.namespace
                and service.selector is not None
                and service.selector.matches(pod.labels)
                for pod in servers
            ):
                return service, mapped
    return None
