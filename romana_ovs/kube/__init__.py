"""EDGE IN: a folder of manifests (later: the API server) becomes objects of the model."""
