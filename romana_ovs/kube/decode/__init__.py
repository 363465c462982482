"""Decodes Kubernetes objects, from a manifest or from an API server, and validates them."""
