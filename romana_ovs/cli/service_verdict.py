"""Decides a connection to a Service: one decision for each of its backends, and one for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from romana_ovs.cli.connection_ends import Services, ServiceTarget
from romana_ovs.lint.suggestions import explain
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.selector_text import selector_text
from romana_ovs.model.services import Service, ServicePort
from romana_ovs.model.syntax import joined
from romana_ovs.policy.backends import Backend, backends, ports_text, selected_pods
from romana_ovs.policy.evaluate import Decision, Reference
from romana_ovs.policy.explain import RuleRef
from romana_ovs.policy.near_misses import NearMiss, near_misses

MAX_LINES = 10
"""How many backends, and near misses of one connection, the text shows; further ones are counted."""
_PROXIED = "They may see a node's address in place of the client's."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is decided about one connection, with the rules that come near to admitting it."""

    decision: Decision
    misses: tuple[NearMiss, ...] = ()

    @classmethod
    def of(cls, reference: Reference, connection: Connection) -> Outcome:
        """The decision about `connection`. Raises InputError for a pod that does not exist."""
        decision = reference.decide(connection)
        return cls(decision, near_misses(reference, connection, decision))

    def lines(self) -> list[str]:
        """The sentence, and an indented line for each near miss."""
        lines = [self.decision.reason, *(f"  {miss}" for miss in self.misses[:MAX_LINES])]
        if len(self.misses) > MAX_LINES:
            lines.append(f"  and {len(self.misses) - MAX_LINES} more; --json has all of them")
        return lines

    def to_json(self) -> dict[str, object]:
        """As in docs/design.md section 8; `near` is absent when no rule comes near."""
        near = {"near": [miss.to_json() for miss in self.misses]} if self.misses else {}
        rules = [reference.to_json() for reference in self.decision.rules]
        return {"allowed": self.decision.allowed, "reason": self.decision.reason, "rules": rules, **near}


@dataclass(frozen=True, slots=True)
class ServiceOutcome:
    """What is decided about connections to a Service: it is `allowed` when every backend with the port admits them."""

    target: ServiceTarget
    reason: str
    outcomes: tuple[tuple[Backend, Outcome], ...] = ()
    without_port: tuple[Backend, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether there are backends, and all of them admit the connection."""
        return bool(self.outcomes) and all(outcome.decision.allowed for _, outcome in self.outcomes)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All backends, also those without the port."""
        return (*(backend for backend, _ in self.outcomes), *self.without_port)

    def lines(self) -> list[str]:
        """The sentence about the Service, and those about its backends: the dropped ones first."""
        ordered = sorted((outcome for _, outcome in self.outcomes), key=lambda outcome: outcome.decision.allowed)
        lines = [line for outcome in ordered[:MAX_LINES] for line in outcome.lines()]
        if len(ordered) > MAX_LINES:
            lines.append(f"and {len(ordered) - MAX_LINES} more; --json has all of them")
        return [self.reason, *lines, *(f"{backend.fault}." for backend in self.without_port[:MAX_LINES])]

    def to_json(self) -> dict[str, object]:
        """The fields of any verdict, `service`, and `backends` with a verdict for each."""
        deciding = [one.decision for _, one in self.outcomes if self.allowed or not one.decision.allowed]
        rules: dict[RuleRef, None] = dict.fromkeys(rule for decision in deciding for rule in decision.rules)
        service = self.target.service
        return {
            "allowed": self.allowed,
            "reason": " ".join([self.reason, *(decision.reason for decision in deciding[:MAX_LINES])]),
            "rules": [rule.to_json() for rule in rules],
            "service": {"namespace": service.namespace, "name": service.name},
            "backends": [_backend_json(backend, outcome) for backend, outcome in self.outcomes],
        }


def _backend_json(backend: Backend, outcome: Outcome) -> dict[str, object]:
    end = backend.end
    where = {"pod": end.pod} if end.pod is not None else {"address": str(end.address)}
    return {**where, "port": str(backend.port), **outcome.to_json()}


def decide_service(
    reference: Reference, source: ConnectionEnd, target: ServiceTarget, port: PortRef, services: Services
) -> ServiceOutcome:
    """What is decided about connections from `source` to `port` of the Service.

    Raises InputError for a Service of type ExternalName, and for a pod that does not exist.
    """
    service = target.service
    own = port if not isinstance(target.port, ServicePort) else PortRef(target.port.protocol, target.port.number)
    start = f"{source} -> Service {service} {own} is "
    if service.external_name:
        why = f"stands for the DNS name {service.external_name}, not for pods; ask for one of its addresses"
        raise InputError.because(f"Service {service} {why}", field="--to")
    if target.port is None:
        reason = f"{start}dropped: {target.subject} has no port {port}; its ports: {ports_text(service)}."
        return ServiceOutcome(target, reason)
    all_backends = backends(
        service, target.port, services.endpoints, cluster=reference.cluster, addresses=reference.addresses
    )
    without_port = tuple(backend for backend in all_backends if backend.port is None)
    outcomes = tuple(
        (backend, Outcome.of(reference, Connection(source, backend.end, backend.port)))
        for backend in all_backends
        if backend.port is not None
    )
    if not outcomes:
        reason = f"{start}dropped: {target.subject} has no endpoints: {_no_endpoints(service, reference.cluster)}."
        return ServiceOutcome(target, reason, (), without_port)
    admitting = [str(backend) for backend, outcome in outcomes if outcome.decision.allowed]
    return ServiceOutcome(target, start + _summary(target, outcomes, admitting), outcomes, without_port)


def _summary(target: ServiceTarget, outcomes: Sequence[tuple[Backend, Outcome]], admitting: Sequence[str]) -> str:
    """The end of the sentence about a Service that has endpoints: whether it is allowed, and what it stands for."""
    names = [str(backend) for backend, _ in outcomes]
    behind = f"{target.subject} stands for {joined(names)}." + (f" {_PROXIED}" if target.proxied else "")
    if len(admitting) == len(outcomes):
        return f"allowed: {behind}"
    if not admitting:
        return f"dropped: {behind}"
    return f"not always allowed, only to {joined(admitting)}: {behind}"


def _no_endpoints(service: Service, cluster: Cluster) -> str:
    """Why a Service has no endpoint with the port that is asked for."""
    if service.selector is None:
        return "it has no selector, and no Endpoints or EndpointSlice with this port is in the manifests"
    labels = selector_text(service.selector)
    if any(selected_pods(service, cluster)):
        return f"no running pod of namespace {service.namespace} with {labels} has this port"
    pods = [pod.labels for pod in cluster.pods.values() if pod.namespace == service.namespace and not pod.finished]
    hint = explain(service.selector, pods, "pods").suggestion if pods else ""
    reason = f"no running pod of namespace {service.namespace} has {labels}"
    return f"{reason}; its selector may mean {hint}" if hint else reason
