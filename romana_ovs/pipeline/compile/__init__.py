"""Compiles one node's view and permissions to flows, in sections that change independently.

Each module compiles the flows of one concern; `program` puts them together. A section whose inputs did not change is
the identical tuple as before, so the difference between two programs is cheap.
"""

from romana_ovs.pipeline.compile.program import CompileCache, Program, compile_node, group_entries, is_group

__all__ = ["CompileCache", "Program", "compile_node", "group_entries", "is_group"]
