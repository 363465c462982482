"""Evaluates policies. `evaluate` is the reference; `normalise` and `resolve` compute the input of the tables. Pure.

This package has no sockets, threads, clocks, files, randomness or OpenFlow. `evaluate` reads the objects themselves and
never imports `normalise` or `resolve`, so that the two implementations are independent.
"""
