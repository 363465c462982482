"""Runs the election over a Lease (coordination.k8s.io/v1) in its own thread.

`romana_ovs.kube.api.election` decides. Others check the `LeadershipGuard`, which reads the clock itself, so that it is
correct also while this thread hangs in a request.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from romana_ovs.kube.api import election
from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.desired import Leadership
from romana_ovs.kube.api.election import Election, LeadershipTerm, LeaseRead, LeaseWrite, Record, Request, State, Timing
from romana_ovs.kube.api.health_log import HealthLog
from romana_ovs.model.errors import ApiError, ConflictError, MissingError, TornError

LOG = logging.getLogger("romana_ovs.lease")

VERSION = "coordination.k8s.io/v1"


def clock() -> float:
    """Seconds on a clock that is never set and also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall() -> datetime:
    """The wall-clock time; only written into the record for people."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LeaseName:
    """The name of a Lease."""

    namespace: str = "kube-system"
    name: str = "romana-ovs"

    @property
    def collection(self) -> str:
        """The path of the collection."""
        return f"/apis/{VERSION}/namespaces/{self.namespace}/leases"

    @property
    def path(self) -> str:
        """The path of the object."""
        return f"{self.collection}/{self.name}"

    def __str__(self) -> str:
        return f"lease {self.namespace}/{self.name}"


class LeadershipGuard:
    """Whether this process may do writes of the leader; for any thread."""

    def __init__(self, now: Callable[[], float] = clock) -> None:
        self._now = now
        self._term: LeadershipTerm | None = None

    def set(self, term: LeadershipTerm | None) -> None:
        """Set the present term; None: not leading."""
        self._term = term

    @property
    def term(self) -> LeadershipTerm | None:
        """The present term, over or not; None while this process does not lead."""
        return self._term

    def may_write(self, *, needs: float = 0.0) -> bool:
        """Whether a write that takes up to `needs` seconds may begin now. Must be checked before every write."""
        term = self._term
        return term is not None and term.may_write(self._now(), needs=needs)


@dataclass(frozen=True, slots=True)
class Environment:
    """Clocks, randomness and waiting of an elector; tests replace them. `wait` waits for an event or a timeout."""

    now: Callable[[], float] = clock
    wall: Callable[[], datetime] = wall
    chance: Callable[[], float] = field(default_factory=lambda: random.Random().random)
    wait: Callable[[threading.Event, float], object] = threading.Event.wait


class Elector:
    """`run` is the body of a thread; `notify` is called from it with each change of Leadership, and with Health."""

    def __init__(
        self,
        api: Api,
        lease: LeaseName,
        *,
        identity: str,
        notify: Callable[[object], None],
        timing: Timing | None = None,
        environment: Environment | None = None,
        guard: LeadershipGuard | None = None,
    ) -> None:
        self.guard = guard or LeadershipGuard((environment or Environment()).now)
        self._api = api
        self._lease = lease
        self._notify = notify
        self._environment = environment or Environment()
        self._election = Election(identity, timing or Timing())
        self._announced = Leadership(False, "")
        self._stamp = datetime.fromtimestamp(0, UTC)
        self._acquired = ""
        self._stop = False
        self._wake = threading.Event()
        self._health = HealthLog(LOG, str(lease), notify)

    def stop(self) -> None:
        """Make `run` release the lease and return. All writes must have ended before."""
        self._stop = True
        self._wake.set()

    def run(self) -> None:
        """Returns when stopped."""
        while self._election.state is not State.ENDED:
            self._wake.clear()
            now = self._environment.now()
            self._check_stop(now)
            self._election, request = election.next_request(self._election, now)
            # When stopping, the lease is released first: the controller may have ended.
            if not self._stop:
                self._publish()
            if request is not None:
                self._election = self._after_request(request)
                self._publish()
            else:
                self._environment.wait(self._wake, max(0.0, self._election.next_due() - self._environment.now()))
        self._notify(Leadership(False, "", ended=True))

    def _check_stop(self, now: float) -> None:
        if self._stop:
            self.guard.set(None)
            self._election = election.on_stop(self._election, now)

    def _after_request(self, request: Request) -> Election:
        """Send `request`; returns the election after its result."""
        try:
            record = self._read(request) if isinstance(request, LeaseRead) else self._write(request)
        except (ConflictError, MissingError) as error:
            # When a create fails so, its namespace is missing.
            if isinstance(request, LeaseRead) or (
                isinstance(error, MissingError) and not request.record.resource_version
            ):
                return self._failed(error)
            return election.on_conflict(self._election, self._environment.now(), chance=self._environment.chance())
        except ApiError as error:
            return self._failed(error)
        self._health.succeeded()
        now, chance = self._environment.now(), self._environment.chance()
        if isinstance(request, LeaseWrite) and record is not None:
            return election.on_written(self._election, request, record, now, chance=chance)
        return election.on_read(self._election, record, now, chance=chance)

    def _failed(self, error: ApiError) -> Election:
        self._health.failed(error)
        now, chance = self._environment.now(), self._environment.chance()
        return election.on_failed(self._election, now, chance=chance, retry_after=error.retry_after)

    def _read(self, request: LeaseRead) -> Record | None:
        try:
            response = self._api.request("GET", self._lease.path, deadline=request.deadline).json()
        except MissingError:
            return None
        return self._record(response)

    def _write(self, request: LeaseWrite) -> Record:
        method, path = (
            ("PUT", self._lease.path) if request.record.resource_version else ("POST", self._lease.collection)
        )
        response = self._api.request(method, path, body=self._body(request.record), deadline=request.deadline)
        return self._record(response.json())

    def _record(self, value: Mapping[str, Any]) -> Record:
        """The record in a Lease object; with an empty spec nobody holds it. Raises TornError."""
        try:
            spec = value.get("spec") or {}
            self._stamp = _read_time(spec.get("renewTime") or "", self._stamp)
            self._acquired = spec.get("acquireTime") or ""
            return Record(
                holder=spec.get("holderIdentity") or "",
                transitions=int(spec.get("leaseTransitions") or 0),
                lease_duration=float(spec.get("leaseDurationSeconds") or 0),
                resource_version=value["metadata"]["resourceVersion"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TornError(f"{self._lease}: the stored object is no valid Lease") from error

    def _body(self, record: Record) -> dict[str, Any]:
        # A write without changes is none, and others would see no renewal. So the time is always new, even if the wall
        # clock stands still or is set back.
        stamp = self._environment.wall()
        if stamp == self._stamp:
            stamp += timedelta(microseconds=1)
        renewed = micro_time(stamp)
        current = self._election.record
        ours_before = current is not None and current.holder == self._election.identity
        metadata = {"name": self._lease.name, "namespace": self._lease.namespace}
        if record.resource_version:
            metadata["resourceVersion"] = record.resource_version
        return {
            "apiVersion": VERSION,
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": int(record.lease_duration),
                "leaseTransitions": record.transitions,
                "acquireTime": self._acquired if ours_before and self._acquired else renewed,
                "renewTime": renewed,
            },
        }

    def _publish(self) -> None:
        """Update the guard, and notify of changes."""
        current = self._election.term(self._environment.now())
        term = current if not self._stop else None
        self.guard.set(term)
        record = self._election.record
        holder = record.holder if record is not None else ""
        now = Leadership(term is not None, holder)
        if now == self._announced:
            return
        if now.leads != self._announced.leads:
            transitions = f"leading, after {term.transitions} leaseTransitions" if term is not None else ""
            LOG.info("%s: %s", self._lease, transitions or "no longer leading")
        self._announced = now
        self._notify(now)


def micro_time(moment: datetime) -> str:
    """`moment` as a Kubernetes MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _read_time(text: str, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return otherwise
