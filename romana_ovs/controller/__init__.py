"""WIRING of the running controller: sources, ports, sessions with switches, and the status feed.

Each part knows its own I/O and nothing of the others; `romana_ovs.app` passes values between them.
"""
