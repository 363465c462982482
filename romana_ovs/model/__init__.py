"""Defines the values that all stages exchange: identifiers, Kubernetes objects, selectors, settings, errors.

Law of this package: no sockets, threads, clocks, files or randomness; frozen values only.
"""
