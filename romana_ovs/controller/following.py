"""What the application needs of whatever gives its nodes their numbers and views."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any, Protocol

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import NodeView


class Following(Protocol):
    """Follows a cluster; `World` decides all of it alone, `NodeAgents` goes by what a registry publishes."""

    plan: AddressPlan

    @property
    def revision(self) -> int:
        """Counts the changes that `to_json` shows."""

    @property
    def pending(self) -> bool:
        """Whether something waits: for switches to confirm, or for the registry."""

    @property
    def step(self) -> int:
        """Counts the steps of what is pending, where they are this process's to take: switches confirm one by one."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be given to whom, and why; sorted."""

    def view(self, facts: BridgeFacts, all_facts: Mapping[str, BridgeFacts]) -> NodeView | None:
        """What the node of `facts` must know; None while that cannot be said: what is programmed stays."""

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        """The address of `pod`, or None while it has none."""

    def uid_of(self, pod: PodKey) -> str:
        """The UID of the pod that has the address of `pod`; empty when it is not known, or there is none."""

    def mac_of(self, pod: PodKey) -> str | None:
        """The MAC that goes with the address of `pod`, or None while it has none."""

    def node_of(self, pod: PodKey) -> str | None:
        """The node that `pod` has its address on, or None."""

    def host_number(self, node: str) -> int | None:
        """The host number of `node`, or None."""

    def to_save(self) -> dict[str, Any]:
        """`to_json`, in which values may be Encoded."""

    def to_json(self) -> dict[str, Any]:
        """All numbers that must survive a restart, in plain values of JSON."""
