"""Questions that policies ask about labels, and what is known of their answers.

An atom is a requirement without its negation: In and NotIn of the same values ask one question, and so
do Exists and DoesNotExist.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.labels import NO_LABELS, Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import Direction
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.rules import NamedPort, NormalPolicy, NormalRule, Scope
from romana_ovs.policy.view import Atom

_AFFIRMATIVE = frozenset({Operator.IN, Operator.EXISTS})

MOST_ATOMS, MOST_TEXT = 2048, 150_000
"""Questions in one namespace, and characters of them: one object of the API server holds them, beside their answers.

Whoever may write policies must not be able to keep the registry from publishing everybody's numbers. Rules that ask
more admit nobody by it: what is not known is closed.
"""
_FRAME = 40
"""Characters around the names in a question."""

Questions = tuple[tuple[Scope, frozenset[Atom]], ...]
"""Scopes of a policy, each with the atoms it asks of the pods in its namespaces."""


def atom_of(requirement: Requirement) -> tuple[Atom, bool]:
    """The question that `requirement` asks, and the answer that meets it."""
    values = requirement.values if requirement.operator in (Operator.IN, Operator.NOT_IN) else None
    return Atom(requirement.key, values), requirement.operator in _AFFIRMATIVE


def holds(atom: Atom, labels: Mapping[str, str]) -> bool:
    """The answer that `labels` give; an absent key answers no to both kinds of question."""
    value = labels.get(atom.key)
    return value is not None and (atom.values is None or value in atom.values)


def atom_order(atom: Atom) -> tuple[str, bool, tuple[str, ...]]:
    """A sort key, the same in every process."""
    return atom.key, atom.values is not None, tuple(sorted(atom.values or ()))


class Room:
    """What is left for questions, of `times` as much as one namespace has."""

    def __init__(self, times: int = 1) -> None:
        self._atoms, self._text = times * MOST_ATOMS, times * MOST_TEXT

    def take(self, atoms: Collection[Atom]) -> frozenset[Atom]:
        """Those of `atoms` that fit in, the first ones in their order; the same in every process."""
        lengths = {atom: _FRAME + len(atom.key) + sum(len(value) + 3 for value in atom.values or ()) for atom in atoms}
        if len(lengths) > self._atoms or sum(lengths.values()) > self._text:
            lengths = dict(self._first(lengths))
        self._atoms -= len(lengths)
        self._text -= sum(lengths.values())
        return frozenset(lengths)

    def _first(self, lengths: Mapping[Atom, int]) -> Iterator[tuple[Atom, int]]:
        end = 0
        for atom in sorted(lengths, key=atom_order)[: max(0, self._atoms)]:
            end += lengths[atom]
            if end > self._text:
                return
            yield atom, lengths[atom]


def needs_server_node(rule: NormalRule) -> bool:
    """Whether an egress rule may admit something that only the destination's node can tell."""
    if rule.scopes:
        return rule.ports is None or bool(rule.ports)
    return bool(rule.any_peer or rule.cidrs) and any(isinstance(port, NamedPort) for port in rule.ports or ())


def questions(policy: NormalPolicy) -> Questions:
    """What `policy` asks of pods on other nodes.

    Ingress asks about peers: its subjects are decided on their own node, from exact labels. Egress asks
    about subjects, where the destination's node decides a rule: there it is the peers that are known exactly.
    """
    asked: dict[Scope, frozenset[Atom]] = {}
    for rule in policy.rules:
        if rule.direction is Direction.INGRESS:
            asked.update((scope, _atoms(scope.pods)) for scope in rule.scopes if not rule.any_peer)
        elif needs_server_node(rule):
            asked[policy.subject] = _atoms(policy.subject.pods)
    return tuple((scope, atoms) for scope, atoms in asked.items() if atoms)


def _atoms(selector: Selector) -> frozenset[Atom]:
    return frozenset(atom_of(requirement)[0] for requirement in selector.requirements)


def atoms_by_namespace(
    policies: Iterable[NormalPolicy], namespaces: Mapping[str, Labels], *, settings: Settings | None = None
) -> Mapping[str, frozenset[Atom]]:
    """The questions asked in each namespace: of `namespaces` (all of them), and of those that scopes name.

    With `settings` those are left out whose answer cannot matter, because tenants keep the servers that
    a policy selects and the pods of the namespace apart (docs/design.md section 5, step 5).
    """
    found: dict[str, set[Atom]] = {name: set() for name in namespaces}
    matching: dict[Selector, tuple[str, ...]] = {}
    for policy in policies:
        for scope, atoms in questions(policy):
            if scope.namespace is not None:
                names: tuple[str, ...] = (scope.namespace,)
            elif scope.namespaces in matching:
                names = matching[scope.namespaces]
            else:
                names = tuple(name for name, labels in namespaces.items() if scope.namespaces.matches(labels))
                matching[scope.namespaces] = names
            for name in names:
                if _may_meet(policy.subject.namespace, name, namespaces=namespaces, settings=settings):
                    found.setdefault(name, set()).update(atoms)
    return {name: frozenset(atoms) for name, atoms in found.items()}


def namespace_tenant(name: str, labels: Mapping[str, str], settings: Settings) -> str | None:
    """The tenant of every pod of a namespace with these labels; None when pods have tenants of their own."""
    if settings.tenant_source is TenantSource.POD_LABEL:
        return None
    if settings.tenant_source is TenantSource.NAMESPACE_LABEL:
        return labels.get(settings.tenant_key, NO_TENANT)
    return name


def _may_meet(server: str | None, client: str, *, namespaces: Mapping[str, Labels], settings: Settings | None) -> bool:
    if settings is None or settings.isolation is Isolation.NONE or server is None or server == client:
        return True
    tenants = [namespace_tenant(name, namespaces.get(name, NO_LABELS), settings) for name in (server, client)]
    return tenants[0] is None or tenants[0] in settings.shared_tenants or tenants[0] == tenants[1]
