"""Declares tables, registers, priorities and cookies as data, and compiles permissions to flows.

This package has no sockets, threads, clocks, files or randomness. A flow that breaks its table's
declaration raises PipelineError when it is built.
"""
