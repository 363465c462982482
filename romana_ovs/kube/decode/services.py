"""Decodes Services, Endpoints, EndpointSlices and ServiceCIDRs.

Sources: Kubernetes core/v1 Service and Endpoints, discovery.k8s.io/v1 EndpointSlice, networking.k8s.io/v1 ServiceCIDR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from romana_ovs.kube.decode.field_names import SERVICE_PORT, SERVICE_SPEC, check_names
from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.selectors import MAX_PORT, read_protocol
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import PodKey
from romana_ovs.model.services import (
    Address,
    Endpoint,
    EndpointPort,
    EndpointsObject,
    Service,
    ServiceCIDR,
    ServiceEndpoints,
    ServicePort,
)
from romana_ovs.model.syntax import port_name_fault, shown

SERVICE_LABEL = "kubernetes.io/service-name"
"""The label of an EndpointSlice with the name of its Service."""
_HEADLESS = "None"


def read_service(document: Mapping[str, object], validator: Validator, *, namespace: str, name: str) -> Service:
    """The Service in `document`, as far as it can be read."""
    spec = validator.mapping(document.get("spec"), "spec")
    check_names(spec, SERVICE_SPEC, "spec", validator)
    external_name = ""
    if validator.string(spec.get("type"), "spec.type") == "ExternalName":
        external_name = validator.string(spec.get("externalName"), "spec.externalName")
    labels = read_labels(spec.get("selector"), "spec.selector", validator)
    cluster_ip = validator.string(spec.get("clusterIP"), "spec.clusterIP")
    listed = [("spec.clusterIP", spec.get("clusterIP")), *_texts(spec.get("clusterIPs"), "spec.clusterIPs", validator)]
    return Service(
        namespace=namespace,
        name=name,
        selector=Selector.of(labels) if labels and not external_name else None,
        ports=tuple(_service_ports(spec.get("ports"), validator)),
        addresses=tuple(_addresses(listed, validator)),
        external=tuple(_external(document, spec, validator)),
        headless=cluster_ip == _HEADLESS,
        external_name=external_name,
    )


def _service_ports(value: object, validator: Validator) -> Iterator[ServicePort]:
    for where, entry in validator.mappings_in(value, "spec.ports"):
        check_names(entry, SERVICE_PORT, where, validator)
        number = validator.integer(entry.get("port"), f"{where}.port", low=1, high=MAX_PORT)
        if number is None:
            if entry.get("port") is None:
                validator.error(f"{where}.port", "is required")
            continue
        node_port = validator.integer(entry.get("nodePort"), f"{where}.nodePort", low=0, high=MAX_PORT)
        yield ServicePort(
            number=number,
            protocol=read_protocol(entry.get("protocol"), f"{where}.protocol", validator),
            name=validator.string(entry.get("name"), f"{where}.name"),
            target=_target_port(entry.get("targetPort"), f"{where}.targetPort", validator) or number,
            node_port=node_port or 0,
        )


def _target_port(value: object, path: str, validator: Validator) -> int | str | None:
    """The number or name of a port of the pods; 0, empty or None means that of the Service.

    A text is a name, so one of digits alone is invalid (IsValidPortName of k8s.io/apimachinery/pkg/util/validation).
    """
    if not isinstance(value, str):
        return validator.integer(value, path, low=0, high=MAX_PORT)
    if value and (fault := port_name_fault(value)):
        validator.error(path, fault)
    return value


def _external(document: Mapping[str, object], spec: Mapping[str, object], validator: Validator) -> Iterator[Address]:
    """The addresses of the Service for clients outside: externalIPs, loadBalancerIP, and those of its status."""
    texts = _texts(spec.get("externalIPs"), "spec.externalIPs", validator)
    texts.append(("spec.loadBalancerIP", spec.get("loadBalancerIP")))
    status = validator.mapping(document.get("status"), "status")
    balancer = validator.mapping(status.get("loadBalancer"), "status.loadBalancer")
    for where, entry in validator.mappings_in(balancer.get("ingress"), "status.loadBalancer.ingress"):
        texts.append((f"{where}.ip", entry.get("ip")))
    yield from _addresses(texts, validator)


def read_endpoints(
    document: Mapping[str, object], validator: Validator, *, namespace: str, name: str
) -> EndpointsObject:
    """The Endpoints in `document`: those of the Service of the same name."""
    groups = []
    for where, subset in validator.mappings_in(document.get("subsets"), "subsets"):
        endpoints = [
            endpoint
            for path, entry in validator.mappings_in(subset.get("addresses"), f"{where}.addresses")
            for endpoint in _endpoints([(f"{path}.ip", entry.get("ip"))], entry, path, namespace, validator)
        ]
        ports = tuple(_endpoint_ports(subset.get("ports"), f"{where}.ports", validator))
        groups.append(ServiceEndpoints(namespace, name, tuple(endpoints), ports))
    return EndpointsObject(namespace, name, tuple(groups))


def read_endpoint_slice(
    document: Mapping[str, object],
    validator: Validator,
    *,
    namespace: str,
    name: str,
    labels: Labels,
    ready_only: bool = True,
) -> EndpointsObject:
    """The EndpointSlice in `document`: those of the Service that its label names, none without that label."""
    endpoints: list[Endpoint] = []
    for where, entry in validator.mappings_in(document.get("endpoints"), "endpoints"):
        conditions = validator.mapping(entry.get("conditions"), f"{where}.conditions")
        if not ready_only or conditions.get("ready") is not False:
            texts = _texts(entry.get("addresses"), f"{where}.addresses", validator)
            endpoints += _endpoints(texts, entry, where, namespace, validator)
    ports = tuple(_endpoint_ports(document.get("ports"), "ports", validator))
    service = labels.get(SERVICE_LABEL, "")
    groups = (ServiceEndpoints(namespace, service, tuple(endpoints), ports),) if service else ()
    return EndpointsObject(namespace, name, groups)


def without_pods(slice_: EndpointsObject, network: IPv4Network) -> EndpointsObject:
    """The endpoints of an EndpointSlice that are no pods: whose addresses are not in the pods' network."""
    kept = []
    for group in slice_.groups:
        endpoints = tuple(
            Endpoint(endpoint.address)
            for endpoint in group.endpoints
            if isinstance(endpoint.address, IPv4Address) and endpoint.address not in network
        )
        if endpoints:
            kept.append(replace(group, endpoints=endpoints))
    return replace(slice_, groups=tuple(kept))


def read_service_cidr(document: Mapping[str, object], validator: Validator, *, name: str) -> ServiceCIDR:
    """The ServiceCIDR in `document` with its IPv4 ranges."""
    spec = validator.mapping(document.get("spec"), "spec")
    ranges = []
    for path, value in _texts(spec.get("cidrs"), "spec.cidrs", validator):
        text = validator.string(value, path)
        try:
            network = ip_network(text)
        except ValueError:
            validator.error(path, f"{shown(text)} is not a CIDR without host bits")
            continue
        if isinstance(network, IPv4Network):
            ranges.append(network)
    return ServiceCIDR(name, tuple(ranges))


def _endpoints(
    texts: Iterable[tuple[str, object]], entry: Mapping[str, object], path: str, namespace: str, validator: Validator
) -> list[Endpoint]:
    """The endpoints of one entry, with the pod that its targetRef names."""
    reference = validator.mapping(entry.get("targetRef"), f"{path}.targetRef")
    pod = None
    if reference.get("kind") == "Pod":
        owner = validator.string(reference.get("namespace"), f"{path}.targetRef.namespace") or namespace
        pod = PodKey(f"{owner}/{validator.string(reference.get('name'), f'{path}.targetRef.name')}")
    return [Endpoint(address, pod) for address in _addresses(texts, validator)]


def _endpoint_ports(value: object, path: str, validator: Validator) -> Iterator[EndpointPort]:
    for where, entry in validator.mappings_in(value, path):
        number = validator.integer(entry.get("port"), f"{where}.port", low=1, high=MAX_PORT)
        if number is not None:
            protocol = read_protocol(entry.get("protocol"), f"{where}.protocol", validator)
            yield EndpointPort(number, protocol, validator.string(entry.get("name"), f"{where}.name"))


def _texts(value: object, path: str, validator: Validator) -> list[tuple[str, object]]:
    return [(f"{path}[{index}]", entry) for index, entry in enumerate(validator.sequence(value, path))]


def _addresses(texts: Iterable[tuple[str, object]], validator: Validator) -> list[Address]:
    """The addresses in `texts` (path, text), each once; an empty text is none."""
    addresses: dict[Address, None] = {}
    for path, value in texts:
        text = validator.string(value, path)
        try:
            if text and text != _HEADLESS:
                addresses[ip_address(text)] = None
        except ValueError:
            validator.error(path, f"{shown(text)} is not an IP address")
    return list(addresses)
