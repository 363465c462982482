"""Frontends of Services whose backends are no pods: of EndpointSlices no more than that is kept."""

from __future__ import annotations

from ipaddress import IPv4Address

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import ENDPOINT_SLICES, SERVICES
from romana_ovs.model.services import ServiceBackend, ServiceFrontend
from tests.support.observed_objects import applied, deleted, listed_cache, observe, observed


def service(
    name: str = "kubernetes", *, version: int = 1, address: str = "172.30.0.1", port_name: str = "https"
) -> Update:
    ports = [{"name": port_name, "port": 443, "targetPort": 6443}]
    return observed(SERVICES, name, version, namespace="shop", spec={"clusterIP": address, "ports": ports})


def endpoints(
    name: str, *addresses: str, version: int = 1, service_name: str = "kubernetes", ready: bool = True
) -> Update:
    """An EndpointSlice of 6443/TCP, of whoever has these addresses."""
    return observed(
        ENDPOINT_SLICES,
        name,
        version,
        namespace="shop",
        labels={"kubernetes.io/service-name": service_name},
        ports=[{"name": "https", "port": 6443, "protocol": "TCP"}],
        endpoints=[{"addresses": [address], "conditions": {"ready": ready}} for address in addresses],
    )


def frontend(*backends: str) -> ServiceFrontend:
    own = tuple(ServiceBackend(IPv4Address(address), 6443) for address in backends)
    return ServiceFrontend(IPv4Address("172.30.0.1"), "tcp", 443, own)


def test_the_api_server_is_no_pod() -> None:
    _, loaded = listed_cache(services=[service()], slices=[endpoints("a", "192.0.2.10")])
    assert loaded.cluster.frontends == (frontend("192.0.2.10"),)


def test_pods_are_left_out() -> None:
    """Also one that is not ready is a backend: the proxy uses it while it terminates, or soon."""
    _, loaded = listed_cache(
        services=[service(), service("pods", address="172.30.0.2")],
        slices=[
            endpoints("a", "10.0.80.0", "192.0.2.10", ready=False),
            endpoints("b", "10.0.80.1", service_name="pods"),
            endpoints("c", "192.0.2.11", service_name="unknown"),
        ],
    )
    assert loaded.cluster.frontends == (frontend("192.0.2.10"),)


def test_a_port_belongs_to_the_one_of_its_name() -> None:
    _, loaded = listed_cache(services=[service(port_name="other")], slices=[endpoints("a", "192.0.2.10")])
    assert loaded.cluster.frontends == ()


def test_a_change_of_pods_is_no_change() -> None:
    store, loaded = listed_cache(services=[service()], slices=[endpoints("a", "192.0.2.10", "10.0.80.0")])
    assert store.apply(observe(ENDPOINT_SLICES, endpoints("a", "192.0.2.10", "10.0.80.1", version=2))) is None
    now = applied(store, observe(ENDPOINT_SLICES, endpoints("b", "192.0.2.9")))
    assert now.cluster.frontends == (frontend("192.0.2.9", "192.0.2.10"),)
    now = applied(store, observe(ENDPOINT_SLICES, deleted(endpoints("a"), 3)))
    assert now.cluster.frontends == (frontend("192.0.2.9"),)
    now = applied(store, observe(SERVICES, deleted(service(), 2)))
    assert now.cluster.frontends == ()
    assert loaded.cluster.frontends == (frontend("192.0.2.10"),)
