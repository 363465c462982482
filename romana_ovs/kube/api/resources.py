"""Declares the resources that are listed and watched."""

from __future__ import annotations

from dataclasses import dataclass, replace

from romana_ovs.kube.decode.decoder import POLICY, POLICY_VERSION, ROMANA_POLICY, SERVICE_CIDR
from romana_ovs.kube.decode.romanapolicy import CURRENT_VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API, in all namespaces.

    `kind` is the kind in ObjectId, `served` the kind in the API where it differs. Objects of a resource that is not
    `decoded` are passed on unchanged. `fields` is a field selector, empty for all objects. A `custom` resource
    may be missing, as its CRD may not be installed, or the API server is older than the resource.
    """

    name: str
    kind: str
    version: str
    served: str = ""
    decoded: bool = True
    custom: bool = False
    fields: str = ""

    @property
    def path(self) -> str:
        """Its path at the API server."""
        return f"/{'apis' if '/' in self.version else 'api'}/{self.version}/{self.name}"

    def __str__(self) -> str:
        group = self.version.rpartition("/")[0]
        return f"{self.name}.{group}" if group else self.name


PODS = Resource("pods", "Pod", "v1")
NAMESPACES = Resource("namespaces", "Namespace", "v1")
NODES = Resource("nodes", "Node", "v1")
POLICIES = Resource("networkpolicies", POLICY, POLICY_VERSION)
SERVICE_CIDRS = Resource("servicecidrs", SERVICE_CIDR, POLICY_VERSION, custom=True)
"""Since Kubernetes 1.33."""
SERVICES = Resource("services", "Service", "v1")
ENDPOINT_SLICES = Resource("endpointslices", "EndpointSlice", "discovery.k8s.io/v1")
ROMANA_POLICIES = Resource("networkpolicies", ROMANA_POLICY, CURRENT_VERSION, served=POLICY, custom=True)
TENANTS = Resource("tenants", "Tenant", CURRENT_VERSION, decoded=False, custom=True)
ALLOCATIONS = Resource("allocations", "Allocation", CURRENT_VERSION, decoded=False, custom=True)
CLASS_SETS = Resource("classsets", "ClassSet", CURRENT_VERSION, decoded=False, custom=True)
NODE_REPORTS = Resource("nodereports", "NodeReport", CURRENT_VERSION, decoded=False, custom=True)

CLUSTER = (NODES, NAMESPACES, SERVICE_CIDRS, SERVICES, ENDPOINT_SLICES, POLICIES, ROMANA_POLICIES, PODS)
"""The resources of which a Cluster is built."""


def pods_of(node: str) -> Resource:
    """The pods that are bound to `node`."""
    return replace(PODS, fields=f"spec.nodeName={node}")
