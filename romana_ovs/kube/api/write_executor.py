"""Executes writes of registry and node agents (Allocation, ClassSets, NodeReports), in order."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

from romana_ovs.kube.api.component import Context
from romana_ovs.kube.api.messages import ObjectsObserved
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS, Resource
from romana_ovs.kube.published import Verb, Write
from romana_ovs.model.errors import ApiError, ConflictError, MissingError

LOG = logging.getLogger("romana_ovs.writes")

WRITE_SECONDS = 5.0
"""Deadline of one write; a leadership term must last longer than that."""
_RESOURCES = {resource.kind: resource for resource in (ALLOCATIONS, CLASS_SETS, NODE_REPORTS)}


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """Requests `writes`, to be sent one after the other; the WriteResult has the same `number`.

    `leading`: only while this process leads.
    """

    number: int
    writes: tuple[Write, ...]
    leading: bool = False


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The result of the request with this `number`. Written objects are sent before it, as if they were watched.

    `conflict`: the resourceVersion of an object was not the expected one; the watch delivers the new one, maybe
    later. `error` is any other failure, else empty.
    """

    number: int
    error: str = ""
    conflict: bool = False


class WriteExecutor:
    """The component that executes WriteRequests."""

    handles: tuple[type, ...] = (WriteRequest,)

    def __init__(self, context: Context) -> None:
        self._api = context.api
        self._settings = context.start.settings
        self._send = context.send
        self._guard = context.guard
        self._ending = False
        self._requests: queue.SimpleQueue[WriteRequest | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writes", daemon=True)

    def start(self) -> None:
        """Start the thread that executes queued requests."""
        self._thread.start()

    def handle(self, message: object) -> None:
        """Queue the writes."""
        if isinstance(message, WriteRequest):
            self._requests.put(message)

    def stop(self) -> None:
        """Begin no further write, and wait for the present one, as the lease is released after it."""
        self._ending = True
        self._requests.put(None)
        self._thread.join(WRITE_SECONDS)

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                answer = self.execute(request)
            except Exception as error:  # Must not end the thread: nothing would be written any more.
                LOG.exception("internal error while writing, please report")
                answer = WriteResult(request.number, f"internal error: {error!r}")
            self._send(answer)

    def execute(self, request: WriteRequest) -> WriteResult:
        """Execute one request; returns its result."""
        for write in request.writes:
            if self._ending:
                return WriteResult(request.number, "this process ends")
            if request.leading and not self._guard.may_write(needs=WRITE_SECONDS):
                return WriteResult(request.number, "another process leads")
            try:
                self._do(write)
            except (ConflictError, MissingError) as error:
                # Another version is stored, and the watch will show it. But a create fails so if the CRD is missing.
                LOG.info("%s %s %s: %s", write.verb.value, write.kind, write.name, error)
                if write.verb is Verb.CREATE and isinstance(error, MissingError):
                    return WriteResult(request.number, str(error))
                return WriteResult(request.number, conflict=True)
            except ApiError as error:
                return WriteResult(request.number, f"{write.kind} {write.name} cannot be written: {error}")
        return WriteResult(request.number)

    def _do(self, write: Write) -> None:
        resource = _RESOURCES[write.kind]
        path = f"{resource.path}/{write.name}"
        if write.verb is Verb.DELETE:
            options = {"preconditions": {"resourceVersion": write.resource_version}} if write.resource_version else None
            self._api.request("DELETE", path, body=options, deadline=WRITE_SECONDS)
            return
        status = write.body is not None and "status" in write.body
        if write.verb is Verb.CREATE:
            stored = self._api.request("POST", resource.path, body=write.body, deadline=WRITE_SECONDS).json()
            if status:
                # A create ignores the status (CRD subresource), so that is a second write.
                version = stored["metadata"]["resourceVersion"]
                body = {**(write.body or {}), "metadata": {"name": write.name, "resourceVersion": version}}
                stored = self._api.request("PUT", f"{path}/status", body=body, deadline=WRITE_SECONDS).json()
        else:
            suffix = "/status" if status else ""
            stored = self._api.request("PUT", path + suffix, body=write.body, deadline=WRITE_SECONDS).json()
        self._send_object(resource, stored)

    def _send_object(self, resource: Resource, value: Any) -> None:
        """Send the written object to the controller at once, before the watch shows it."""
        meta = object_meta(value, resource)
        if meta is not None:
            update = decoder(resource, self._settings)(value, meta)
            self._send(ObjectsObserved(str(resource), (update,), (), time.monotonic()))
