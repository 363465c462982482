"""Limits what pods may send through meters: connections, fragments, ARP requests of a pod; fragments of a tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import conntrack, pickup, spoof_guard
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter, arp_meter, connection_meter, fragment_meter, tenant_fragment_meter
from romana_ovs.pipeline.zones import ZoneShare
from romana_ovs.policy.view import LocalPod, Origin


@dataclass(frozen=True, slots=True)
class PodMeters:
    """The meters of one pod; None if there is no limit."""

    arp: Meter
    fragments: Meter | None
    connections: Meter | None
    tenant_fragments: bool
    """Whether fragments pass the meter of the pod's tenant, too."""

    def present(self) -> tuple[Meter, ...]:
        """The meters that are not None."""
        return tuple(meter for meter in (self.arp, self.fragments, self.connections) if meter is not None)


def pod_meters(pod: LocalPod, settings: Settings) -> PodMeters:
    """The meters of `pod`, by the settings `new_connections`, `fragments` and `tenant_fragments`.

    Raises PipelineError for an invalid ofport.
    """
    origin = Origin("Pod", pod.namespace, pod.key.partition("/")[2])
    rate, fragment_rate = settings.new_connections, settings.fragments
    return PodMeters(
        arp=arp_meter(pod.ofport, origin),
        fragments=fragment_meter(pod.ofport, fragment_rate, origin) if fragment_rate else None,
        connections=connection_meter(pod.ofport, rate, origin) if rate else None,
        tenant_fragments=bool(settings.tenant_fragments),
    )


def tenant_meters(zones: Iterable[int], shares: Mapping[int, ZoneShare], settings: Settings) -> dict[int, Meter]:
    """The meters of the tenants with these conntrack zones, by zone; none without `tenant_fragments`."""
    rate = settings.tenant_fragments
    return {
        number: tenant_fragment_meter(number, rate, Origin("Tenant", name=shares[number].tenant))
        for number in (sorted(zones) if rate else ())
    }


def meter_rows(pod: LocalPod, meters: PodMeters) -> tuple[Flow, ...]:
    """The rows that meter packets of `pod`, except ARP requests (spoof_guard.pod_guard)."""
    rows: list[Flow] = []
    if meters.fragments is not None or meters.tenant_fragments:
        rows += spoof_guard.metered_fragments(
            pod.ofport, meters.arp.origin, meters.fragments, by_tenant=meters.tenant_fragments
        )
    if meters.connections is not None:
        rows += conntrack.metered_commits(pod, meters.connections)
        rows += pickup.metered_commits(pod.ofport, meters.connections) if pod.pre_restart else ()
    return tuple(rows)
