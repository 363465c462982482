"""Defines the values that the registry and the node agents exchange; `kube/published` has them as API objects."""
