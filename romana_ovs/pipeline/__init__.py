"""Declares tables, registers, priorities and cookies as data, and compiles verdicts of policies to flows.

Law of this package: no sockets, threads, clocks, files or randomness. A flow that breaks its table's
declaration raises PipelineError when it is built.
"""
