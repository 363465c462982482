"""WIRING: from a cluster to what each node must know of it, step by step as the cluster changes.

Stateful, but free of I/O, clocks and chance. It owns the numbers that must not change (addresses, host
numbers, identities); `NodeView`s are a function of these and of the cluster.
"""

from romana_ovs.engine.engine import Engine
from romana_ovs.engine.offline import offline, offline_facts

__all__ = ["Engine", "offline", "offline_facts"]
