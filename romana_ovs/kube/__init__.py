"""EDGE IN: a folder of manifests or an API server becomes objects of the model; also what is written to the latter."""
