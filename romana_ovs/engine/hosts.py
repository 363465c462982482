"""Gives host numbers to nodes; a returned number waits until every node has acknowledged its removal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from romana_ovs.addressing.numbers import NumberAllocator
from romana_ovs.model.errors import AddressError, Problem
from romana_ovs.policy.published import Published


class HostNumbers:
    """The host number of every node."""

    def __init__(self, published: Published, now: int) -> None:
        """Those that were `published`; what is retired has been since revision `now`."""
        self._plan = published.plan
        self._numbers = NumberAllocator(published.free_hosts[0], published.free_hosts[1:])
        self._hosts = dict(published.hosts)
        self._retired = dict.fromkeys(published.retired_hosts, now)
        self._frozen: Mapping[str, int] = MappingProxyType(dict(sorted(self._hosts.items())))
        self._refused: dict[str, Problem] = {}

    @property
    def hosts(self) -> Mapping[str, int]:
        """Each node's number: the same frozen object until it changes."""
        return self._frozen

    @property
    def line(self) -> tuple[int, ...]:
        """The line in which free numbers wait, as `Published.free_hosts`."""
        return tuple(self._numbers.to_json())

    @property
    def retired(self) -> frozenset[int]:
        """NumberAllocator that are nobody's, but not to be given yet."""
        return frozenset(self._retired)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Nodes that got no number."""
        return tuple(self._refused.values())

    def update(
        self,
        nodes: Collection[str],
        used: Collection[str],
        *,
        usable: Callable[[int], bool],
        acknowledged: float,
        now: int,
    ) -> None:
        """Gives each of `nodes` a number, and takes those of others that are not `used` by pods any more.

        What was taken is free when it was so before the revision that all nodes have `acknowledged`.
        """
        for number in [number for number, since in self._retired.items() if since <= acknowledged]:
            del self._retired[number]
            self._numbers.free(number)
        before = dict(self._hosts)
        for name in sorted(self._hosts.keys() - nodes - set(used)):
            self._retired[self._hosts.pop(name)] = now
        self._refused = {}
        for name in sorted(set(nodes) - self._hosts.keys()):
            try:
                self._hosts[name] = self._give(name, usable)
            except AddressError as refused:
                self._refused[name] = Problem(str(refused), kind="Node", name=name)
        if self._hosts != before:
            self._frozen = MappingProxyType(dict(sorted(self._hosts.items())))

    def _give(self, node: str, usable: Callable[[int], bool]) -> int:
        number = self._numbers.allocate(self._plan.hosts, usable)
        if number is None:
            raise AddressError(
                f"node {node} gets no host number: all 2**{self._plan.node_bits} = {self._plan.hosts} (host_bits "
                f"{self._plan.node_bits}) are in use"
            )
        return number
