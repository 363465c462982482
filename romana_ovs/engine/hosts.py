"""Allocates host numbers; a released one is free once every node has acknowledged its release."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from romana_ovs.addressing.numbers import NumberAllocator
from romana_ovs.model.errors import AddressError, Problem
from romana_ovs.registry_types.published import Published


class HostNumbers:
    """The host number of every node."""

    def __init__(self, published: Published, revision: int) -> None:
        """Begins with what was `published`; retired numbers count as released in `revision`."""
        self._plan = published.plan
        self._numbers = NumberAllocator(published.free_hosts[0], published.free_hosts[1:])
        self._hosts = dict(published.hosts)
        self._retired = dict.fromkeys(published.retired_hosts, revision)
        self._frozen: Mapping[str, int] = MappingProxyType(dict(sorted(self._hosts.items())))
        self._unallocated: dict[str, Problem] = {}

    @property
    def hosts(self) -> Mapping[str, int]:
        """Each node's number: the identical mapping until one changes."""
        return self._frozen

    @property
    def free(self) -> tuple[int, ...]:
        """The free numbers as `Published.free_hosts` has them."""
        return tuple(self._numbers.to_json())

    @property
    def retired(self) -> frozenset[int]:
        """Numbers that no node has, and that are not free yet."""
        return frozenset(self._retired)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """One for each node that got no number."""
        return tuple(self._unallocated.values())

    def update(
        self,
        nodes: Collection[str],
        used: Collection[str],
        *,
        usable: Callable[[int], bool],
        acknowledged: float,
        revision: int,
    ) -> None:
        """Allocates a number for each of `nodes`, and releases those of other nodes that are not `used` by pods.

        A number is free once all nodes have `acknowledged` the revision in which it was released.
        """
        for number in [number for number, since in self._retired.items() if since <= acknowledged]:
            del self._retired[number]
            self._numbers.free(number)
        before = dict(self._hosts)
        for name in sorted(self._hosts.keys() - nodes - set(used)):
            self._retired[self._hosts.pop(name)] = revision
        self._unallocated = {}
        for name in sorted(set(nodes) - self._hosts.keys()):
            try:
                self._hosts[name] = self._allocate(name, usable)
            except AddressError as error:
                self._unallocated[name] = Problem(str(error), kind="Node", name=name)
        if self._hosts != before:
            self._frozen = MappingProxyType(dict(sorted(self._hosts.items())))

    def _allocate(self, node: str, usable: Callable[[int], bool]) -> int:
        number = self._numbers.allocate(self._plan.hosts, usable)
        if number is None:
            raise AddressError(
                f"node {node} gets no host number: all 2**{self._plan.host_bits} = {self._plan.hosts} (host_bits "
                f"{self._plan.host_bits}) are in use"
            )
        return number
