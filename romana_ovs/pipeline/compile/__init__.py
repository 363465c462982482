"""PURE: one node's view and verdicts compiled to flows, in sections that change apart.

Each module writes the flows of one concern; `program` puts them together. A section whose inputs did not
change is the identical tuple as before, so a difference between two programs is cheap.
"""

from romana_ovs.pipeline.compile.program import CompileCache, Program, compile_node, group_entries, is_group

__all__ = ["CompileCache", "Program", "compile_node", "group_entries", "is_group"]
