"""Reads a folder of manifests into a cluster, and follows its changes."""
