"""Reads a folder of manifests as a cluster, and follows its changes."""
