"""Builds the cluster from what an API server lists and watches. No I/O."""
