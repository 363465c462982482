"""Writes the statuses of our own kinds to the API server, one thread a kind; what and when, `StatusBook` decides.

A status goes through the `status` subresource as a JSON merge patch that names the version that it was made from. Not
by server-side apply: that would let a leader which has lost write over what its successor wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.desired import AllStatuses, SomeStatuses
from romana_ovs.kube.api.lease import Fence, clock, wall
from romana_ovs.kube.api.resources import ROMANA_POLICIES, TENANTS, Resource
from romana_ovs.kube.api.status_queue import Known, Look, Make, Patch, StatusBook, Task
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import ApiError, ConflictError, MissingError, RefusedError

LOG = logging.getLogger("romana_ovs.statuses")

RESOURCES = (ROMANA_POLICIES, TENANTS)
"""What has a status of ours."""
MERGE_PATCH = "application/merge-patch+json"
PAGE = 500
WRITE_SECONDS = 4.0
"""The longest that a write may take; less than the grace between a leader's end and the next one's beginning."""
LISTING_SECONDS = 600.0
"""How often all statuses are read again, for those that somebody else has changed."""
IDLE_SECONDS = 1.0
"""How often it is looked whether we lead by now."""


class Statuses:
    """The job (of a Worker) that writes the statuses of one resource while we lead."""

    def __init__(self, api: Api, resource: Resource, fence: Fence) -> None:
        self._api = api
        self._resource = resource
        self._fence = fence
        self._book = StatusBook()
        self._list_at: float | None = None

    def accept(self, message: AllStatuses | SomeStatuses) -> None:
        """Other statuses are wanted from now on; those of other kinds are passed over."""
        kind = self._resource.kind
        if isinstance(message, AllStatuses):
            self._book.want_all({key: status for key, status in message.statuses.items() if key.kind == kind})
        else:
            self._book.want({key: status for key, status in message.changed.items() if key.kind == kind})

    def attempt(self) -> float:
        """Do the next thing, if it is time; returns the seconds to wait for the one after. Raises ApiError."""
        if not self._fence.may_write():
            self._list_at = None
            return IDLE_SECONDS
        now = clock()
        if self._list_at is None or now >= self._list_at:
            self._book.learn_all(dict(self._listed()))
            self._list_at = now + LISTING_SECONDS
        task = self._book.task(clock(), wall().strftime("%Y-%m-%dT%H:%M:%SZ"))
        if task is None or isinstance(task, float):
            return IDLE_SECONDS if task is None else min(IDLE_SECONDS, task)
        self._do(task)
        return 0.0

    def _path(self, key: ObjectId) -> str:
        inside = f"/namespaces/{key.namespace}" if key.namespace else ""
        return f"/apis/{self._resource.version}{inside}/{self._resource.name}/{key.name}"

    def _listed(self) -> Iterator[tuple[ObjectId, Known]]:
        """All objects of the resource, in pages."""
        query: dict[str, str | int] = {"limit": PAGE}
        while True:
            page = self._api.request("GET", self._resource.path, query=query).json()
            for value in page["items"]:
                metadata = value["metadata"]
                key = ObjectId(self._resource.kind, metadata.get("namespace", ""), metadata["name"])
                yield key, Known.of(value)
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    def _do(self, task: Task) -> None:
        """Carry out `task` and tell the book. Raises ApiError for what concerns more than this object."""
        if not isinstance(task, Look) and not self._fence.may_write():
            return
        try:
            if isinstance(task, Look):
                self._book.learn(task.id, Known.of(self._api.request("GET", self._path(task.id)).json()))
            elif isinstance(task, Make):
                self._book.learn(task.id, self._make(task))
            else:
                self._book.wrote(task, self._patch(task), clock())
        except ConflictError:
            self._book.conflicted(task.id)
        except MissingError:
            if isinstance(task, Make):
                raise  # Not the object is missing, but its kind.
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
            "apiVersion": self._resource.version,
            "kind": self._resource.kind,
            "metadata": {"name": task.id.name},
            "spec": {"tenant": task.tenant},
        }
        answer = self._api.request("POST", self._resource.path, body=body, deadline=WRITE_SECONDS)
        return Known.of(answer.json())

    def _patch(self, task: Patch) -> Known:
        precondition = {"uid": task.known.uid, "resourceVersion": task.known.version}
        answer = self._api.request(
            "PATCH",
            f"{self._path(task.id)}/status",
            body={"metadata": precondition, "status": task.body},
            content_type=MERGE_PATCH,
            deadline=WRITE_SECONDS,
        )
        return Known.of(answer.json())
