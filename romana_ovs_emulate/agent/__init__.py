"""What runs inside emulated pods: servers, probes and streams, started by one small forking process.

Law of this package: only the standard library is imported, so that forking a pod takes a millisecond and
little memory; it knows nothing of the rest of romana-ovs (but how to remove a run whose owner was killed).
"""
