"""The Kubernetes API server as a source, in a process of its own: with threads, without eventlet."""
