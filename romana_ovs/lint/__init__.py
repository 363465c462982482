"""Finds what is valid in manifests but probably not intended: pure checks of a snapshot, each with its advice.

Each module has the checks of one kind, which `registry.CHECKS` lists. A check is quiet when in doubt.
"""

from romana_ovs.lint.registry import lint

__all__ = ["lint"]
