"""Limits what a local pod may send through its meters: connections it opens, fragments, ARP requests."""

from __future__ import annotations

from dataclasses import dataclass

from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import guard, lost, track
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter, arp_meter, fragment_meter, opening_meter
from romana_ovs.policy.view import LocalPod, Origin


@dataclass(frozen=True, slots=True)
class PodMeters:
    """The meters of one pod; None for what is not limited."""

    asking: Meter
    sending: Meter | None
    opening: Meter | None

    def present(self) -> tuple[Meter, ...]:
        """Those that there are."""
        return tuple(meter for meter in (self.asking, self.sending, self.opening) if meter is not None)


def pod_meters(pod: LocalPod, settings: Settings) -> PodMeters:
    """The meters of `pod`, by the settings `new_connections` and `fragments`. Raises PipelineError for no port."""
    origin = Origin("Pod", pod.namespace, pod.key.partition("/")[2])
    rate, pieces = settings.new_connections, settings.fragments
    return PodMeters(
        asking=arp_meter(pod.ofport, origin),
        sending=fragment_meter(pod.ofport, pieces, origin) if pieces else None,
        opening=opening_meter(pod.ofport, rate, origin) if rate else None,
    )


def limit_rows(pod: LocalPod, meters: PodMeters) -> tuple[Flow, ...]:
    """What passes the meters of `pod`, but for its ARP requests (guard.pod_guard)."""
    rows: list[Flow] = []
    if meters.sending is not None:
        rows += guard.limited_fragments(pod.ofport, meters.sending)
    if meters.opening is not None:
        rows += track.limited(pod, meters.opening)
        rows += lost.limited(pod.ofport, meters.opening) if pod.survivor else ()
    return tuple(rows)
