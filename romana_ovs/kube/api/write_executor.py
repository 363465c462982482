"""The part of the Kubernetes process that carries out writes which the controller has planned."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

from romana_ovs.kube.api.component import Surroundings
from romana_ovs.kube.api.messages import Seen
from romana_ovs.kube.api.object_decoder import decoder, head_of
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS, Resource
from romana_ovs.kube.published import Verb, Write
from romana_ovs.model.errors import ApiError, ConflictError, MissingError

LOG = logging.getLogger("romana_ovs.carry")

WRITE_SECONDS = 5.0
"""One write; a mandate to lead must last longer than that."""
_RESOURCES = {resource.kind: resource for resource in (ALLOCATIONS, CLASS_SETS, NODE_REPORTS)}


@dataclass(frozen=True, slots=True)
class Carry:
    """The controller asks for `writes`, one after the other; the answer has the same `number`.

    `leading`: only while this process leads.
    """

    number: int
    writes: tuple[Write, ...]
    leading: bool = False


@dataclass(frozen=True, slots=True)
class Carried:
    """The writes of that number have been tried. What they made of the objects was told before, as if it was seen.

    `trouble` is what was refused for another reason than that somebody was quicker, in a sentence; else empty. `late`:
    somebody was. What is there now is told by the watch, which may be behind.
    """

    number: int
    trouble: str = ""
    late: bool = False


class Carrier:
    """A Part of the Kubernetes process."""

    wants: tuple[type, ...] = (Carry,)

    def __init__(self, around: Surroundings) -> None:
        self._api = around.api
        self._settings = around.start.settings
        self._send = around.send
        self._fence = around.fence
        self._ending = False
        self._waiting: queue.SimpleQueue[Carry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="carry", daemon=True)

    def start(self) -> None:
        """Carry out what comes, in a thread that ends with the process."""
        self._thread.start()

    def take(self, message: object) -> None:
        """Writes to carry out, after those that came before."""
        if isinstance(message, Carry):
            self._waiting.put(message)

    def end(self) -> None:
        """Begin no further write, and wait for the one that is under way: the lease is given back after it."""
        self._ending = True
        self._waiting.put(None)
        self._thread.join(WRITE_SECONDS)

    def _run(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                answer = self.carry(job)
            except Exception as error:  # A mistake of ours must not end the thread: nothing would be written any more.
                LOG.exception("a mistake of ours while writing")
                answer = Carried(job.number, f"internal error: {error!r}")
            self._send(answer)

    def carry(self, job: Carry) -> Carried:
        """Carry out one job; returns what came of it."""
        for write in job.writes:
            if self._ending:
                return Carried(job.number, "this process ends")
            if job.leading and not self._fence.may_write(needs=WRITE_SECONDS):
                return Carried(job.number, "another process leads")
            try:
                self._do(write)
            except (ConflictError, MissingError) as error:
                # Somebody was quicker, and what is there now is told by the watch. But a kind may be missing.
                LOG.info("%s %s %s: %s", write.verb.value, write.kind, write.name, error)
                if write.verb is Verb.CREATE and isinstance(error, MissingError):
                    return Carried(job.number, str(error))
                return Carried(job.number, late=True)
            except ApiError as error:
                return Carried(job.number, f"{write.kind} {write.name} cannot be written: {error}")
        return Carried(job.number)

    def _do(self, write: Write) -> None:
        resource = _RESOURCES[write.kind]
        path = f"{resource.path}/{write.name}"
        if write.verb is Verb.DELETE:
            options = {"preconditions": {"resourceVersion": write.version}} if write.version else None
            self._api.request("DELETE", path, body=options, deadline=WRITE_SECONDS)
            return
        status = write.body is not None and "status" in write.body
        if write.verb is Verb.CREATE:
            made = self._api.request("POST", resource.path, body=write.body, deadline=WRITE_SECONDS).json()
            if status:
                # What is created has no status yet (CRD subresource): that is a second write, over the first.
                version = made["metadata"]["resourceVersion"]
                body = {**(write.body or {}), "metadata": {"name": write.name, "resourceVersion": version}}
                made = self._api.request("PUT", f"{path}/status", body=body, deadline=WRITE_SECONDS).json()
        else:
            suffix = "/status" if status else ""
            made = self._api.request("PUT", path + suffix, body=write.body, deadline=WRITE_SECONDS).json()
        self._tell(resource, made)

    def _tell(self, resource: Resource, value: Any) -> None:
        """Have the controller see an object at once, not only when the watch brings it."""
        head = head_of(value, resource)
        if head is not None:
            update = decoder(resource, self._settings)(value, head)
            self._send(Seen(str(resource), (update,), (), time.monotonic()))
