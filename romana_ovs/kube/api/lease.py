"""Carries out an election over a Lease of the API server (coordination.k8s.io/v1) in a thread of its own.

Everything is decided in `romana_ovs.kube.api.election`. What others ask is the `Fence`: it looks at the clock itself,
so it is right also while this thread hangs in a request.
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
from romana_ovs.kube.api.election import Ask, Election, Mandate, Read, Record, State, Timing, Write
from romana_ovs.kube.api.health_log import Grumble
from romana_ovs.model.errors import ApiError, ConflictError, MissingError, TornError

LOG = logging.getLogger("romana_ovs.lease")

VERSION = "coordination.k8s.io/v1"


def clock() -> float:
    """Seconds on a clock that nobody sets and that runs on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall() -> datetime:
    """What the wall clock says; only ever written into the record for people to read."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LeaseName:
    """Which Lease is meant."""

    namespace: str = "kube-system"
    name: str = "romana-ovs"

    @property
    def collection(self) -> str:
        """The path to create it at."""
        return f"/apis/{VERSION}/namespaces/{self.namespace}/leases"

    @property
    def path(self) -> str:
        """The path of the object."""
        return f"{self.collection}/{self.name}"

    def __str__(self) -> str:
        return f"lease {self.namespace}/{self.name}"


class Fence:
    """Whether this process may write what only the leader writes; for any thread, at any time."""

    def __init__(self, now: Callable[[], float] = clock) -> None:
        self._now = now
        self._mandate: Mandate | None = None

    def set(self, mandate: Mandate | None) -> None:
        """The right is another one now."""
        self._mandate = mandate

    def may_write(self, *, needs: float = 0.0) -> bool:
        """Whether a write that takes up to `needs` seconds may begin now. To be asked before every single one."""
        mandate = self._mandate
        return mandate is not None and mandate.may_write(self._now(), needs=needs)


@dataclass(frozen=True, slots=True)
class Machine:
    """What an elector takes from the machine; a test gives its own. `wait` waits for an event, or some seconds."""

    now: Callable[[], float] = clock
    wall: Callable[[], datetime] = wall
    chance: Callable[[], float] = field(default_factory=lambda: random.Random().random)
    wait: Callable[[threading.Event, float], object] = threading.Event.wait


class Elector:
    """`run` is a thread's job; `told` is called from it with each change of Leadership, and with Health."""

    def __init__(
        self,
        api: Api,
        lease: LeaseName,
        *,
        me: str,
        told: Callable[[object], None],
        timing: Timing | None = None,
        machine: Machine | None = None,
        fence: Fence | None = None,
    ) -> None:
        self.fence = fence or Fence((machine or Machine()).now)
        self._api = api
        self._lease = lease
        self._told = told
        self._machine = machine or Machine()
        self._election = Election(me, timing or Timing())
        self._announced = Leadership(False, 0, "")
        self._stamp = datetime.fromtimestamp(0, UTC)
        self._acquired = ""
        self._stop = False
        self._wake = threading.Event()
        self._grumble = Grumble(LOG, str(lease), told)

    def stop(self) -> None:
        """End `run` soon, giving the lease back. All writers must have stopped before."""
        self._stop = True
        self._wake.set()

    def run(self) -> None:
        """Returns when stopped."""
        while self._election.state is not State.ENDED:
            self._wake.clear()
            now = self._machine.now()
            self._take_orders(now)
            self._election, ask = election.ask(self._election, now)
            # At the end the lease is given back first: there may be nobody left to be told.
            if not self._stop:
                self._publish()
            if ask is not None:
                self._election = self._answered(ask)
                self._publish()
            else:
                self._machine.wait(self._wake, max(0.0, self._election.wakes() - self._machine.now()))
        self._told(Leadership(False, 0, "", ended=True))

    def _take_orders(self, now: float) -> None:
        if self._stop:
            self.fence.set(None)
            self._election = election.stopped(self._election, now)

    def _answered(self, ask: Ask) -> Election:
        """The election after `ask` has been put to the server, whatever came of it."""
        try:
            answer = self._read(ask) if isinstance(ask, Read) else self._write(ask)
        except (ConflictError, MissingError) as error:
            # A Lease that is to be created can only be missing its namespace.
            if isinstance(ask, Read) or (isinstance(error, MissingError) and not ask.record.version):
                return self._failed(error)
            return election.conflicted(self._election, self._machine.now(), chance=self._machine.chance())
        except ApiError as error:
            return self._failed(error)
        self._grumble.fine()
        now, chance = self._machine.now(), self._machine.chance()
        if isinstance(ask, Write) and answer is not None:
            return election.wrote(self._election, ask, answer, now, chance=chance)
        return election.saw(self._election, answer, now, chance=chance)

    def _failed(self, error: ApiError) -> Election:
        self._grumble.about(error)
        now, chance = self._machine.now(), self._machine.chance()
        return election.failed(self._election, now, chance=chance, patience=error.retry_after)

    def _read(self, ask: Read) -> Record | None:
        try:
            found = self._api.request("GET", self._lease.path, deadline=ask.deadline).json()
        except MissingError:
            return None
        return self._record(found)

    def _write(self, ask: Write) -> Record:
        method, path = ("PUT", self._lease.path) if ask.record.version else ("POST", self._lease.collection)
        answer = self._api.request(method, path, body=self._body(ask.record), deadline=ask.deadline)
        return self._record(answer.json())

    def _record(self, value: Mapping[str, Any]) -> Record:
        """What a Lease object says; a spec that says nothing is nobody's. Raises TornError."""
        try:
            spec = value.get("spec") or {}
            self._stamp = _read_time(spec.get("renewTime") or "", self._stamp)
            self._acquired = spec.get("acquireTime") or ""
            return Record(
                holder=spec.get("holderIdentity") or "",
                transitions=int(spec.get("leaseTransitions") or 0),
                seconds=float(spec.get("leaseDurationSeconds") or 0),
                version=value["metadata"]["resourceVersion"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TornError(f"{self._lease}: what is there is no Lease") from error

    def _body(self, record: Record) -> dict[str, Any]:
        # A write that changes nothing is none: to the others the lease would stand still. So the time is always new,
        # also when the wall clock stands still or goes back.
        stamp = self._machine.wall()
        if stamp == self._stamp:
            stamp += timedelta(microseconds=1)
        renewed = micro_time(stamp)
        held = self._election.record
        ours_before = held is not None and held.holder == self._election.me
        metadata = {"name": self._lease.name, "namespace": self._lease.namespace}
        if record.version:
            metadata["resourceVersion"] = record.version
        return {
            "apiVersion": VERSION,
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": int(record.seconds),
                "leaseTransitions": record.transitions,
                "acquireTime": self._acquired if ours_before and self._acquired else renewed,
                "renewTime": renewed,
            },
        }

    def _publish(self) -> None:
        """Tell the fence, and whoever listens, where we stand."""
        held = self._election.mandate(self._machine.now())
        mandate = held if not self._stop else None
        self.fence.set(mandate)
        record = self._election.record
        holder = record.holder if record is not None else ""
        now = Leadership(mandate is not None, mandate.epoch if mandate is not None else 0, holder)
        if now == self._announced:
            return
        if now.leads != self._announced.leads:
            LOG.info("%s: %s", self._lease, f"leading, epoch {now.epoch}" if now.leads else "not leading any more")
        self._announced = now
        self._told(now)


def micro_time(moment: datetime) -> str:
    """As Kubernetes writes a MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _read_time(text: str, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return otherwise
