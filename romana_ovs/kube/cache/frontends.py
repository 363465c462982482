"""Keeps Services and their EndpointSlices, for the frontends with backends that are no pods."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from romana_ovs.model.services import EndpointsObject, Service, ServiceBackend, ServiceEndpoints, ServiceFrontend

_Name = tuple[str, str]
"""Namespace and name."""


class Frontends:
    """The Services and EndpointSlices of a cluster; slices have only the endpoints that are no pods."""

    def __init__(self) -> None:
        self._services: dict[_Name, Service] = {}
        self._slices: dict[_Name, EndpointsObject] = {}
        self._view: tuple[ServiceFrontend, ...] = ()
        self._changed = False

    def set(self, which: Service | EndpointsObject, *, exists: bool) -> None:
        """Set, or remove, the object with the name of `which`."""
        key = (which.namespace, which.name)
        if isinstance(which, Service):
            self._services.pop(key, None)
            if exists and which.addresses:
                self._services[key] = which
        else:
            self._slices.pop(key, None)
            if exists and which.groups:
                self._slices[key] = which
        self._changed = True

    def view(self) -> tuple[ServiceFrontend, ...]:
        """All frontends with such backends, sorted; the identical tuple while none has changed."""
        if self._changed:
            self._changed = False
            view = tuple(sorted(self._frontends()))
            self._view = self._view if view == self._view else view
        return self._view

    def _frontends(self) -> Iterator[ServiceFrontend]:
        backends: dict[ServiceFrontend, set[ServiceBackend]] = {}
        for group in (group for item in self._slices.values() for group in item.groups):
            service = self._services.get((group.namespace, group.service))
            for frontend, port in _ports(service, group) if service is not None else ():
                backends.setdefault(frontend, set()).update(
                    ServiceBackend(endpoint.address, port)
                    for endpoint in group.endpoints
                    if isinstance(endpoint.address, IPv4Address)
                )
        for frontend, own in backends.items():
            yield frontend._replace(backends=tuple(sorted(own)))


def _ports(service: Service, group: ServiceEndpoints) -> Iterator[tuple[ServiceFrontend, int]]:
    """The frontends of a Service, each with the port of its backends: that of the same name and protocol."""
    for address in service.addresses:
        for port in service.ports:
            for own in group.ports:
                if isinstance(address, IPv4Address) and (own.name, own.protocol) == (port.name, port.protocol):
                    yield ServiceFrontend(address, port.protocol.value, port.number), own.number
