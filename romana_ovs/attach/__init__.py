"""Gives pods their network devices and bridge ports when a container runtime asks by the CNI plugin: the attach agent.

Its process has real threads and no eventlet: what enters a network namespace (setns(2)) must be a thread of its own.
"""
