"""Lists the policies of other systems, which decide about connections and are not acted on.

Sources: the API references of the projects: network-policy-api.sigs.k8s.io, docs.tigera.io, docs.cilium.io, antrea.io,
istio.io, linkerd.io, kubeovn.github.io, docs.openshift.com, ovn-kubernetes.io, and of the cloud providers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Effect(Enum):
    """What objects of a kind do to connections. The value is the error of an answer that leaves them out."""

    BOTH = "too open where it denies and too closed where it allows"
    CLOSES = "too open"
    OPENS = "too closed"
    NONE = ""
    """Nothing by themselves, in their own system either."""


@dataclass(frozen=True, slots=True)
class OtherPolicy:
    """An object of another system that decides about connections; `reason` is the end of a sentence about it."""

    namespace: str
    name: str
    kind: str
    effect: Effect
    reason: str


class _Kind(NamedTuple):
    """The effect of a kind: of all its objects, or with `fields` of those whose spec has one of them."""

    effect: Effect
    fields: tuple[str, ...] = ()


class _Api(NamedTuple):
    """The kinds of one API group, and the name of the system that they belong to."""

    system: str
    kinds: Mapping[str, _Kind]


_BOTH, _CLOSES, _OPENS, _NONE = (_Kind(effect) for effect in Effect)

_NETWORK_POLICY_API = {
    "AdminNetworkPolicy": _BOTH,
    "BaselineAdminNetworkPolicy": _BOTH,
    "ClusterNetworkPolicy": _BOTH,
}
_CALICO = {
    "NetworkPolicy": _BOTH,
    "GlobalNetworkPolicy": _BOTH,
    "HostEndpoint": _CLOSES,
    "Tier": _NONE,
    "StagedNetworkPolicy": _NONE,
    "StagedGlobalNetworkPolicy": _NONE,
    "StagedKubernetesNetworkPolicy": _NONE,
}
_CILIUM = {
    "CiliumNetworkPolicy": _BOTH,
    "CiliumClusterwideNetworkPolicy": _BOTH,
    "CiliumLocalRedirectPolicy": _BOTH,
}
_ANTREA = {"NetworkPolicy": _BOTH, "ClusterNetworkPolicy": _BOTH, "Tier": _NONE}
_ISTIO = {"AuthorizationPolicy": _CLOSES, "PeerAuthentication": _Kind(Effect.CLOSES, ("mtls", "portLevelMtls"))}
_LINKERD = {
    "AuthorizationPolicy": _CLOSES,
    "EgressNetwork": _CLOSES,
    "Server": _CLOSES,
    "ServerAuthorization": _OPENS,
}
_KUMA = {"MeshTrafficPermission": _CLOSES, "TrafficPermission": _CLOSES}
_KUBE_OVN = {"SecurityGroup": _CLOSES, "Subnet": _Kind(Effect.CLOSES, ("private", "acls"))}
_OVN_KUBERNETES = {
    "EgressFirewall": _CLOSES,
    "AdminPolicyBasedExternalRoute": _BOTH,
    "ClusterUserDefinedNetwork": _CLOSES,
    "UserDefinedNetwork": _CLOSES,
}
_MULTUS = {"MultiNetworkPolicy": _CLOSES, "NetworkAttachmentDefinition": _OPENS}
_EKS = {"ApplicationNetworkPolicy": _BOTH, "ClusterNetworkPolicy": _BOTH}

_APIS: Mapping[str, _Api] = {
    "access.smi-spec.io": _Api("the Service Mesh Interface", {"TrafficTarget": _CLOSES}),
    "cilium.io": _Api("Cilium", _CILIUM),
    "consul.hashicorp.com": _Api("Consul", {"ServiceIntentions": _CLOSES}),
    "crd.antrea.io": _Api("Antrea", _ANTREA),
    "crd.nsx.vmware.com": _Api("NSX", {"SecurityPolicy": _BOTH}),
    "crd.projectcalico.org": _Api("Calico", _CALICO),
    "k8s.cni.cncf.io": _Api("Multus, for additional networks of pods,", _MULTUS),
    "k8s.ovn.org": _Api("OVN-Kubernetes", _OVN_KUBERNETES),
    "kubeovn.io": _Api("Kube-OVN", _KUBE_OVN),
    "kuma.io": _Api("Kuma", _KUMA),
    "network.openshift.io": _Api("OpenShift SDN", {"EgressNetworkPolicy": _CLOSES}),
    "networking.gke.io": _Api("GKE", {"FQDNNetworkPolicy": _OPENS}),
    "networking.istio.io": _Api("Istio", {"Sidecar": _Kind(Effect.CLOSES, ("outboundTrafficPolicy",))}),
    "networking.k8s.aws": _Api("Amazon EKS", _EKS),
    "policy.linkerd.io": _Api("Linkerd", _LINKERD),
    "policy.networking.k8s.io": _Api("the Network Policy API", _NETWORK_POLICY_API),
    "projectcalico.org": _Api("Calico", _CALICO),
    "security.antrea.tanzu.vmware.com": _Api("Antrea", _ANTREA),
    "security.istio.io": _Api("Istio", _ISTIO),
    "vpcresources.k8s.aws": _Api("the Amazon VPC resource controller", {"SecurityGroupPolicy": _CLOSES}),
}

_MIRRORS = ("knp.default.", "kanp.", "kbanp.", "kcnp.")
"""Beginnings of names under which Calico's API shows policies of Kubernetes and of the Network Policy API again."""

_POLICY_NAME = re.compile(r"NetworkPolicy|FirewallPolicy|FirewallRule|EgressFirewall|TrafficPermission")
"""Kinds of unknown groups that have the name of a policy about connections."""


def other_policy(
    kind: str, group: str, value: Mapping[str, object], *, namespace: str, name: str
) -> OtherPolicy | None:
    """The object as a policy of another system; None when it is not known to decide about connections."""
    api = _APIS.get(group)
    known = api.kinds.get(kind) if api is not None else None
    if known is None:
        if not _POLICY_NAME.search(kind):
            return None
        known = _BOTH
    if api is not None and api.kinds is _CALICO and name.startswith(_MIRRORS):
        known = _NONE
    spec = value.get("spec")
    if known.fields and not (isinstance(spec, dict) and any(spec.get(field) for field in known.fields)):
        return None
    system = api.system if api is not None else f"another system ({group})" if group else "another system"
    if known.effect is Effect.NONE:
        reason = f"belongs to {system}, where it decides about no connection by itself; it has no effect here"
    else:
        reason = f"belongs to {system} and is not acted on: answers may be {known.effect.value}"
    return OtherPolicy(namespace, name, kind, known.effect, reason)
