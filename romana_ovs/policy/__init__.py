"""PURE: what policies mean. `evaluate` is the reference; `normalise` and `resolve` feed the tables.

Law of this package: no sockets, threads, clocks, files or randomness; it knows nothing of OpenFlow.
`evaluate` reads the raw objects and never imports `normalise` or `resolve`: two independent meanings.
"""
