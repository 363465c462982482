"""Defines the values that all stages exchange: identifiers, Kubernetes objects, selectors, settings, errors.

This package has no sockets, threads, clocks, files or randomness; its values are frozen.
"""
