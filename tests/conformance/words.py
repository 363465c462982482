"""The words in which the table of cases is written: manifests, steps, and what is expected after each.

Expectations are written as the upstream end-to-end tests do it: everything is open, then exceptions in order, of
which the last that fits a pair decides. They are written for plain Kubernetes (`isolation = none`). Under tenants
(tenant = namespace, isolation = tenant) one rule is stated here for the whole table: what goes from one namespace
to another is closed, unless the destination is in a namespace that is shared; within a namespace nothing differs.
A step says by `tenants` what holds there where that should be read in full. Nothing here asks our own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from tests.support import api_objects

Manifest = Mapping[str, Any]
"""One Kubernetes object as JSON has it."""

NAME_LABEL = "kubernetes.io/metadata.name"
SHARED = "shared"
"""The namespace whose tenant every tenant may connect to."""
ALL_PORTS = "80/tcp 81/tcp 80/udp 81/udp 80/sctp 81/sctp"
"""What every pod serves, by container ports that are called `serve-80-tcp` and so on."""


class Way(Enum):
    """How a case is run."""

    REFERENCE = "reference evaluation"
    TABLES = "interpreted tables"
    FOLDER = "packets, manifests from a folder"
    API = "packets, objects from the API server"


@dataclass(frozen=True, slots=True)
class Line:
    """One exception: pairs that fit the patterns (`*`, `x/*`, `x/a`) are open, or closed."""

    source: str
    destination: str
    open: bool

    def fits(self, source: str, destination: str) -> bool:
        """Whether the line is about this pair of pods."""
        return _fits(self.source, source) and _fits(self.destination, destination)


def _fits(pattern: str, pod: str) -> bool:
    return pattern in ("*", pod) or (pattern.endswith("/*") and pod.startswith(pattern[:-1]))


@dataclass(frozen=True, slots=True)
class Reach:
    """Which pods may connect to which by one port: all, but for the lines; the last line that fits decides."""

    lines: tuple[Line, ...] = ()

    def closed(self, sources: str, destinations: str) -> Reach:
        """The same with these pairs closed. Several patterns are separated by blanks."""
        return Reach(self.lines + tuple(_lines(sources, destinations, is_open=False)))

    def open(self, sources: str, destinations: str) -> Reach:
        """The same with these pairs open."""
        return Reach(self.lines + tuple(_lines(sources, destinations, is_open=True)))

    def allows(self, source: str, destination: str) -> bool:
        """Whether `source` may connect to `destination`."""
        return next((line.open for line in reversed(self.lines) if line.fits(source, destination)), True)


def _lines(sources: str, destinations: str, *, is_open: bool) -> Iterator[Line]:
    for source in sources.split():
        for destination in destinations.split():
            yield Line(source, destination, is_open)


ALL = Reach()
NONE = ALL.closed("*", "*")


def tenants_rule(source: str, destination: str) -> bool:
    """What tenants leave open at most."""
    spaces = source.partition("/")[0], destination.partition("/")[0]
    return spaces[0] == spaces[1] or spaces[1] == SHARED


@dataclass(frozen=True, slots=True)
class Claim:
    """One path that is not between two pods: an end may be a node (`node1`), an address, or the same pod again.

    Tenants do not concern nodes and outside addresses, so it holds with and without them.
    """

    source: str
    destination: str
    open: bool
    port: str = "80/tcp"


@dataclass(frozen=True, slots=True)
class Gone:
    """The object that a step deletes; `namespace` is empty for cluster-scoped ones."""

    kind: str
    namespace: str
    name: str


Change = Manifest | Gone


@dataclass(frozen=True, slots=True)
class Step:
    """What is created, replaced and deleted, and what is expected then: by port for pairs of pods, claims for the rest.

    `refused`: the API server does not take it, what is expected is that of a manifest folder.
    """

    does: str
    changes: tuple[Change, ...]
    expect: Mapping[str, Reach]
    claims: tuple[Claim, ...] = ()
    tenants: Mapping[str, Reach] = field(default_factory=dict)
    refused: bool = False

    @property
    def ports(self) -> tuple[str, ...]:
        """The ports that something is expected of."""
        return tuple(self.expect)

    def allows(self, source: str, destination: str, port: str, *, tenants: bool) -> bool:
        """What is expected of one ordered pair of pods."""
        if not tenants:
            return self.expect[port].allows(source, destination)
        if port in self.tenants:
            return self.tenants[port].allows(source, destination)
        return self.expect[port].allows(source, destination) and tenants_rule(source, destination)


@dataclass(frozen=True, slots=True)
class Case:
    """Steps that begin with the base cluster. `upstream` is the title of the end-to-end test, without its "should".

    `hazard` is the number in the list of hazards (`A13`) whose shape this is. `without` are ways that it cannot be
    run, with the reason.
    """

    name: str
    steps: tuple[Step, ...]
    upstream: str = ""
    hazard: str = ""
    without: Mapping[Way, str] = field(default_factory=dict)

    def lacking(self, way: Way) -> str:
        """Why it is not run in this way; empty when it is."""
        if way is Way.API and any(step.refused for step in self.steps):
            return "the API server refuses what it is about (tests/conformance/test_validation.py)"
        return self.without.get(way, "")


def case(
    name: str, *steps: Step, upstream: str = "", hazard: str = "", without: Mapping[Way, str] | None = None
) -> Case:
    """A case of these steps."""
    return Case(name, steps, upstream, hazard, without or {})


def step(
    does: str,
    *changes: Change,
    expect: Mapping[str, Reach],
    claims: Sequence[Claim] = (),
    tenants: Mapping[str, Reach] | None = None,
) -> Step:
    """A step; keys of `expect` and `tenants` may be several ports, separated by blanks."""
    return Step(does, changes, _by_port(expect), tuple(claims), _by_port(tenants or {}))


def refused(made: Step) -> Step:
    """The same step, that the API server does not take."""
    return replace(made, refused=True)


def _by_port(given: Mapping[str, Reach]) -> dict[str, Reach]:
    return {port: reach for ports, reach in given.items() for port in ports.split()}


def opens(source: str, destination: str, port: str = "80/tcp") -> Claim:
    """A claim that a path is open."""
    return Claim(source, destination, open=True, port=port)


def closes(source: str, destination: str, port: str = "80/tcp") -> Claim:
    """A claim that a path is closed."""
    return Claim(source, destination, open=False, port=port)


def labels(**wanted: str) -> Manifest:
    """A selector of these labels."""
    return {"matchLabels": wanted}


def named(name: str) -> Manifest:
    """A selector of one namespace by the label that every namespace has."""
    return {"matchLabels": {NAME_LABEL: name}}


def where(key: str, operator: str, *values: str) -> Manifest:
    """A selector of one expression."""
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


EVERY: Manifest = {}
"""The selector of everything."""


def pods(selector: Manifest, namespaces: Manifest | None = None) -> Manifest:
    """A peer with a podSelector, and a namespaceSelector in the same item if given."""
    return {"podSelector": selector, **({} if namespaces is None else {"namespaceSelector": namespaces})}


def spaces(selector: Manifest) -> Manifest:
    """A peer with a namespaceSelector alone."""
    return {"namespaceSelector": selector}


def block(cidr: str, *excepts: str) -> Manifest:
    """A peer by address: `{x/b}` is that pod's, `{node1}` the node's, `{x/b:8}` the /8 that holds it."""
    return {"ipBlock": {"cidr": cidr, **({"except": list(excepts)} if excepts else {})}}


def port(number: int | str | None = None, protocol: str | None = None, *, end: int | None = None) -> Manifest:
    """A port entry, without the fields that are not given."""
    given = {"port": number, "protocol": protocol, "endPort": end}
    return {key: value for key, value in given.items() if value is not None}


def into(*peers: Manifest, ports: Sequence[Manifest] = ()) -> Manifest:
    """An ingress rule, without the lists that are empty."""
    return {**({"from": list(peers)} if peers else {}), **({"ports": list(ports)} if ports else {})}


def out(*peers: Manifest, ports: Sequence[Manifest] = ()) -> Manifest:
    """An egress rule, without the lists that are empty."""
    return {**({"to": list(peers)} if peers else {}), **({"ports": list(ports)} if ports else {})}


ANY_INTO = into()
ANY_OUT = out()


def policy(key: str, selector: Manifest = EVERY, **spec: object) -> Manifest:
    """The NetworkPolicy `namespace/name`; `ingress`, `egress` and `types` are there exactly when they are given."""
    fields = {"policyTypes" if field == "types" else field: value for field, value in spec.items()}
    return api_objects.policy(key, {"podSelector": selector, **fields})


def no_policy(key: str) -> Gone:
    """The end of a NetworkPolicy."""
    return Gone("NetworkPolicy", *key.split("/"))


def namespace(name: str, **more: str) -> Manifest:
    """A namespace with these labels."""
    return api_objects.namespace(name, **more)


def no_namespace(name: str) -> Gone:
    """The end of a namespace."""
    return Gone("Namespace", "", name)


def pod(
    key: str,
    *,
    node: str = "",
    labels: Mapping[str, str] | None = None,
    ports: Sequence[Manifest] | None = None,
    status: Manifest | None = None,
    **spec: object,
) -> Manifest:
    """A pod. Without `labels` it has its own name as `pod`, without `ports` those that all pods of the base have.

    Without `node` it is on node1, or where the base has it.
    """
    given: Manifest = {"pod": key.rpartition("/")[2]} if labels is None else labels
    declared = BASE_PORTS if ports is None else ports
    place = node or BASE_NODES.get(key, "node1")
    return api_objects.pod(key, place, ports=declared, spec=spec, status=status, **given)


def no_pod(key: str) -> Gone:
    """The end of a pod."""
    return Gone("Pod", *key.split("/"))


def container_port(name: str, number: int, protocol: str = "TCP") -> Manifest:
    """A declared port of a container."""
    return {"name": name, "containerPort": number, "protocol": protocol}


BASE_PORTS = tuple(
    container_port(f"serve-{number}-{protocol}", int(number), protocol.upper())
    for number, protocol in (each.split("/") for each in ALL_PORTS.split())
)
BASE_NODES = {
    "x/a": "node1",
    "x/b": "node1",
    "x/c": "node2",
    "y/a": "node2",
    "y/b": "node3",
    "y/c": "node1",
    "z/a": "node3",
    "z/b": "node3",
    "z/c": "node2",
}
"""Where the nine pods of the base are: every namespace has two pods on one node, and one elsewhere."""
BASE = tuple(namespace(name) for name in "xyz") + tuple(pod(key, node=node) for key, node in BASE_NODES.items())
"""The cluster that every case begins with, as the upstream tests have it."""
