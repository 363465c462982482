"""Runs inside emulated pods: servers, probes and streams, in processes that one small process forks.

It imports the standard library only, so that forking a pod takes a millisecond and little memory. Of the rest it
needs `netns.py`, and `runs.py` to remove a run whose owner was killed.
"""
