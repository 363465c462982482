"""Computes the numbers of a cluster and each node's view, step by step as the cluster changes.

Stateful, but without I/O, clocks or randomness. It owns the numbers that must not change (addresses, host numbers,
identities); each `NodeView` is a function of these and of the cluster.
"""

from romana_ovs.engine.engine import Engine
from romana_ovs.engine.offline import offline, offline_facts

__all__ = ["Engine", "offline", "offline_facts"]
