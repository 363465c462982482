"""Talks to a Kubernetes API server, in a process of its own: with threads, without eventlet."""
