"""Builds the container image without a container engine (`make image`), in the form of `docker save`."""
