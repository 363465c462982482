"""Writes the statuses of our own kinds to the API server, one thread a kind; what and when, `StatusBook` decides.

A status goes through the `status` subresource as a JSON merge patch that names the version that it was made from. Not
by server-side apply: that would let a leader which has lost write over what its successor wrote.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.grumble import Grumble
from romana_ovs.kube.api.lease import Fence, clock, wall
from romana_ovs.kube.api.patience import Patience
from romana_ovs.kube.api.status_book import Known, Look, Make, Patch, StatusBook, Task
from romana_ovs.kube.api.wanted import AllStatuses, SomeStatuses
from romana_ovs.kube.decode import ROMANA_POLICY
from romana_ovs.kube.items import ObjectId
from romana_ovs.model.errors import ApiError, ConflictError, MissingError, RefusedError

LOG = logging.getLogger("romana_ovs.statuses")

MERGE_PATCH = "application/merge-patch+json"
GROUP = "/apis/romana.io/v1"
TENANT = "Tenant"
PAGE = 500
WRITE_SECONDS = 4.0
"""The longest that a write may take; less than the grace between a leader's end and the next one's beginning."""
LISTING_SECONDS = 600.0
"""How often all statuses are read again, for those that somebody else has changed."""
IDLE_SECONDS = 1.0
"""How often it is looked whether we lead by now."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of ours that has a status."""

    name: str
    plural: str
    namespaced: bool

    def path(self, key: ObjectId) -> str:
        """The path of one object."""
        inside = f"/namespaces/{key.namespace}" if self.namespaced else ""
        return f"{GROUP}{inside}/{self.plural}/{key.name}"

    def key(self, value: dict[str, Any]) -> ObjectId:
        """The identifier of an object as the server shows it."""
        metadata = value["metadata"]
        return ObjectId(self.name, metadata.get("namespace", ""), metadata["name"])


KINDS = (Kind(ROMANA_POLICY, "networkpolicies", namespaced=True), Kind(TENANT, "tenants", namespaced=False))


class Statuses:
    """The statuses of one kind. `take` is for any thread, `run` is a thread's job and ends after `stop`."""

    def __init__(self, api: Api, kind: Kind, fence: Fence) -> None:
        self._api = api
        self._kind = kind
        self._fence = fence
        self._book = StatusBook()
        self._inbox: queue.SimpleQueue[AllStatuses | SomeStatuses] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stop = False
        self._list_at: float | None = None
        self._patience = Patience()
        self._grumble = Grumble(LOG, f"statuses of {kind.plural}")

    def take(self, message: AllStatuses | SomeStatuses) -> None:
        """Something else is wanted from now on; statuses of other kinds in it are not ours."""
        self._inbox.put(message)
        self._wake.set()

    def stop(self) -> None:
        """End `run` after the write that is under way."""
        self._stop = True
        self._wake.set()

    def run(self) -> None:
        """Returns when stopped."""
        while not self._stop:
            self._wake.clear()
            self._read_inbox()
            pause = self._attempt()
            # What comes in meanwhile waits for the end of a pause that trouble asks for.
            while pause > 0 and not self._stop:
                began = clock()
                woken = self._wake.wait(pause)
                pause = self._patience.left(clock()) if woken else pause - (clock() - began)
                self._wake.clear()
                self._read_inbox()

    def _read_inbox(self) -> None:
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, AllStatuses):
                self._book.want_all({k: v for k, v in message.statuses.items() if k.kind == self._kind.name})
            else:
                self._book.want({k: v for k, v in message.changed.items() if k.kind == self._kind.name})

    def _attempt(self) -> float:
        """Do the next thing, if it is time; returns the seconds to wait for the one after."""
        if not self._fence.may_write():
            self._list_at = None
            return IDLE_SECONDS
        try:
            now = clock()
            if self._list_at is None or now >= self._list_at:
                self._book.learn_all(dict(self._listed()))
                self._list_at = now + LISTING_SECONDS
            task = self._book.task(clock(), wall().strftime("%Y-%m-%dT%H:%M:%SZ"))
            if task is None or isinstance(task, float):
                return min(IDLE_SECONDS, IDLE_SECONDS if task is None else task)
            self._do(task)
        except ApiError as error:
            self._grumble.about(error)
            return self._patience.lost(clock(), error.retry_after)
        self._grumble.fine()
        self._patience.found()
        return 0.0

    def _listed(self) -> Iterator[tuple[ObjectId, Known]]:
        """All objects of the kind, in pages."""
        query: dict[str, str | int] = {"limit": PAGE}
        while True:
            page = self._api.request("GET", f"{GROUP}/{self._kind.plural}", query=query).json()
            for value in page["items"]:
                yield self._kind.key(value), Known.of(value)
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    def _do(self, task: Task) -> None:
        """Carry out `task` and tell the book. Raises ApiError for what concerns more than this object."""
        if not isinstance(task, Look) and not self._fence.may_write():
            return
        try:
            if isinstance(task, Look):
                self._book.learn(task.id, Known.of(self._api.request("GET", self._kind.path(task.id)).json()))
            elif isinstance(task, Make):
                self._book.learn(task.id, self._make(task))
            else:
                self._book.wrote(task, self._patch(task), clock())
        except ConflictError:
            self._book.conflicted(task.id)
        except MissingError:
            self._book.learn(task.id, None)
        except RefusedError as error:
            LOG.error("status of %s: %s; it stays as it is for now", task.id, error)
            self._book.refused(task.id, clock())
        except ApiError:
            # Whether it was written is not known.
            self._book.conflicted(task.id)
            raise

    def _make(self, task: Make) -> Known:
        body = {
            "apiVersion": "romana.io/v1",
            "kind": self._kind.name,
            "metadata": {"name": task.id.name},
            "spec": {"tenant": task.tenant},
        }
        answer = self._api.request("POST", f"{GROUP}/{self._kind.plural}", body=body, deadline=WRITE_SECONDS)
        return Known.of(answer.json())

    def _patch(self, task: Patch) -> Known:
        precondition = {"uid": task.known.uid, "resourceVersion": task.known.version}
        answer = self._api.request(
            "PATCH",
            f"{self._kind.path(task.id)}/status",
            body={"metadata": precondition, "status": task.body},
            content_type=MERGE_PATCH,
            deadline=WRITE_SECONDS,
        )
        return Known.of(answer.json())
