"""Writes statuses of romana.io objects to the API server, with one thread for each kind, as `StatusQueue` decides.

A status is written to the `status` subresource as a JSON merge patch with the resourceVersion that it was computed
from. Server-side apply would allow a former leader to overwrite what its successor wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.desired import ReplaceStatuses, UpdateStatuses
from romana_ovs.kube.api.lease import LeadershipGuard, clock, wall
from romana_ovs.kube.api.resources import ROMANA_POLICIES, TENANTS, Resource
from romana_ovs.kube.api.status_queue import Create, Get, Observed, Patch, StatusQueue, Task
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import ApiError, ConflictError, MissingError, RefusedError

LOG = logging.getLogger("romana_ovs.statuses")

RESOURCES = (ROMANA_POLICIES, TENANTS)
"""The resources with a status that we write."""
MERGE_PATCH = "application/merge-patch+json"
PAGE = 500
WRITE_SECONDS = 4.0
"""Deadline of a write; less than the time between the end of one leader and the start of the next."""
LISTING_SECONDS = 600.0
"""Seconds between listings of all statuses, to find those that others have changed."""
IDLE_SECONDS = 1.0
"""Seconds between checks whether we lead."""


class Statuses:
    """The job of a Worker that writes the statuses of one resource while we lead."""

    def __init__(self, api: Api, resource: Resource, guard: LeadershipGuard) -> None:
        self._api = api
        self._resource = resource
        self._guard = guard
        self._queue = StatusQueue()
        self._list_at: float | None = None

    def accept(self, message: ReplaceStatuses | UpdateStatuses) -> None:
        """Change the desired statuses; those of other kinds are ignored."""
        kind = self._resource.kind
        if isinstance(message, ReplaceStatuses):
            self._queue.replace_all({key: status for key, status in message.statuses.items() if key.kind == kind})
        else:
            self._queue.update({key: status for key, status in message.changed.items() if key.kind == kind})

    def attempt(self) -> float:
        """Do the next task, if one is due; returns the seconds until the next. Raises ApiError."""
        if not self._guard.may_write():
            self._list_at = None
            return IDLE_SECONDS
        now = clock()
        if self._list_at is None or now >= self._list_at:
            self._queue.on_listed(dict(self._listed()))
            self._list_at = now + LISTING_SECONDS
        task = self._queue.next_task(clock(), wall().strftime("%Y-%m-%dT%H:%M:%SZ"))
        if task is None or isinstance(task, float):
            return IDLE_SECONDS if task is None else min(IDLE_SECONDS, task)
        self._execute(task)
        return 0.0

    def _path(self, key: ObjectId) -> str:
        inside = f"/namespaces/{key.namespace}" if key.namespace else ""
        return f"/apis/{self._resource.version}{inside}/{self._resource.name}/{key.name}"

    def _listed(self) -> Iterator[tuple[ObjectId, Observed]]:
        """All objects of the resource, in pages."""
        query: dict[str, str | int] = {"limit": PAGE}
        while True:
            page = self._api.request("GET", self._resource.path, query=query).json()
            for value in page["items"]:
                metadata = value["metadata"]
                key = ObjectId(self._resource.kind, metadata.get("namespace", ""), metadata["name"])
                yield key, Observed.of(value)
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    def _execute(self, task: Task) -> None:
        """Execute `task` and record the result in the queue. Raises ApiError for failures beyond this object."""
        if not isinstance(task, Get) and not self._guard.may_write():
            return
        try:
            if isinstance(task, Get):
                self._queue.on_read(task.id, Observed.of(self._api.request("GET", self._path(task.id)).json()))
            elif isinstance(task, Create):
                self._queue.on_read(task.id, self._create(task))
            else:
                self._queue.on_written(task, self._patch(task), clock())
        except ConflictError:
            self._queue.on_conflict(task.id)
        except MissingError:
            if isinstance(task, Create):
                raise  # It is the CRD that is missing.
            self._queue.on_read(task.id, None)
        except RefusedError as error:
            LOG.error("status of %s: %s; it is left unchanged for now", task.id, error)
            self._queue.on_refused(task.id, clock())
        except ApiError:
            # It is unknown whether it was written.
            self._queue.on_conflict(task.id)
            raise

    def _create(self, task: Create) -> Observed:
        body = {
            "apiVersion": self._resource.version,
            "kind": self._resource.kind,
            "metadata": {"name": task.id.name},
            "spec": {"tenant": task.tenant},
        }
        answer = self._api.request("POST", self._resource.path, body=body, deadline=WRITE_SECONDS)
        return Observed.of(answer.json())

    def _patch(self, task: Patch) -> Observed:
        precondition = {"uid": task.observed.uid, "resourceVersion": task.observed.version}
        answer = self._api.request(
            "PATCH",
            f"{self._path(task.id)}/status",
            body={"metadata": precondition, "status": task.body},
            content_type=MERGE_PATCH,
            deadline=WRITE_SECONDS,
        )
        return Observed.of(answer.json())
