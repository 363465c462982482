"""Talks to a Kubernetes API server, in a separate process with threads and without eventlet."""
