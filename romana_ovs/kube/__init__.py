"""Reads clusters from folders of manifests and from API servers, and writes to the latter.

decode: documents into objects. admission: rules over several objects. manifests: folders. api: API server, and the
process that talks to it. cache: the cluster as the API server reported it. published: the registry's storage format.
"""
