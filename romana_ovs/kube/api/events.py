"""Writes Events (events.k8s.io/v1) with warnings on objects, as `EventQueue` decides.

Everyone who may read Events in a namespace can read them, so a note must not contain anything of other namespaces.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.desired import ReplaceWarnings, UpdateWarnings, single_line
from romana_ovs.kube.api.event_queue import CreateEvent, EventQueue, GetEvent, RenewEvent, Task
from romana_ovs.kube.api.lease import LeadershipGuard, clock, micro_time, wall
from romana_ovs.kube.api.resources import NAMESPACES, NODES, PODS, POLICIES, ROMANA_POLICIES, TENANTS
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import ConflictError, DeniedError, MissingError, RefusedError

LOG = logging.getLogger("romana_ovs.events")

VERSION = "events.k8s.io/v1"
CONTROLLER = "romana.io/romana-ovs"
ACTION = "Programming"
"""The action in which the problem occurred (events.k8s.io/v1 Event.action)."""
CLUSTER_NAMESPACE = "default"
"""The namespace of Events on cluster-scoped objects (kubernetes/staging/src/k8s.io/client-go/tools/events)."""
MERGE_PATCH = "application/merge-patch+json"
WRITE_SECONDS = 4.0
IDLE_SECONDS = 1.0
ENDING = "being terminated"
"""Part of the API server's message when it refuses new objects in a namespace that is being deleted."""
_KINDS = {each.kind: each for each in (PODS, NAMESPACES, NODES, POLICIES, ROMANA_POLICIES, TENANTS)}


class Events:
    """The job of a Worker that writes Events while we lead; `reporter` is the name of this process."""

    def __init__(self, api: Api, reporter: str, guard: LeadershipGuard) -> None:
        self._api = api
        self._reporter = reporter
        self._guard = guard
        self._queue = EventQueue()

    def accept(self, message: ReplaceWarnings | UpdateWarnings) -> None:
        """Change the desired warnings."""
        if isinstance(message, ReplaceWarnings):
            self._queue.replace_all(message.objects)
        else:
            self._queue.update(message.changed)

    def attempt(self) -> float:
        """Do the next task, if one is due; returns the seconds until the next. Raises ApiError."""
        if not self._guard.may_write():
            return IDLE_SECONDS
        task = self._queue.next_task(clock())
        if task is None or isinstance(task, float):
            return IDLE_SECONDS if task is None else min(IDLE_SECONDS, task)
        try:
            self._execute(task)
        except DeniedError as error:
            # Only this namespace is affected when it is being deleted; otherwise all Events are.
            self._queue.on_refused(task, clock())
            if ENDING not in str(error):
                raise
        except RefusedError as error:
            LOG.error("event on %s: %s", task.id, error)
            self._queue.on_refused(task, clock())
        except Exception:
            # It may concern this object only: go on with others first.
            self._queue.on_refused(task, clock())
            raise
        return 0.0

    def _execute(self, task: Task) -> None:
        """Execute `task` and record the result in the queue. Raises ApiError."""
        try:
            if isinstance(task, CreateEvent):
                body = event_body(task, self._reporter, wall())
                self._api.request("POST", _path(task.id), body=body, deadline=WRITE_SECONDS)
                self._queue.on_created(task, clock())
            elif isinstance(task, GetEvent):
                # An empty patch reads, without a permission for get.
                self._queue.on_read(task, _count(self._patch(task, {})))
            else:
                self._patch(task, {"series": {"count": task.count, "lastObservedTime": micro_time(wall())}})
                self._queue.on_renewed(task, clock())
        except ConflictError:
            if isinstance(task, CreateEvent):
                self._queue.on_exists(task)
            else:
                self._queue.on_refused(task, clock())
        except MissingError:
            if isinstance(task, CreateEvent):
                self._queue.on_refused(task, clock())  # Its namespace is deleted; soon the object is, too.
            else:
                self._queue.on_missing(task)

    def _patch(self, task: GetEvent | RenewEvent, body: dict[str, Any]) -> dict[str, Any]:
        path = _path(task.id, task.name)
        answer = self._api.request("PATCH", path, body=body, content_type=MERGE_PATCH, deadline=WRITE_SECONDS)
        return dict(answer.json())


def event_body(task: CreateEvent, reporter: str, at: datetime) -> dict[str, Any]:
    """The Event of `task`, reported by the process `reporter` at the time of day `at`."""
    return {
        "apiVersion": VERSION,
        "kind": "Event",
        "metadata": {"name": task.name, "namespace": task.id.namespace or CLUSTER_NAMESPACE},
        "eventTime": micro_time(at),
        "reportingController": CONTROLLER,
        "reportingInstance": single_line(reporter, 128),
        "action": ACTION,
        "reason": task.warning.reason,
        "regarding": _regarding(task.id, task.warning.version.uid),
        "note": single_line(task.warning.note),
        "type": "Warning",
    }


def _regarding(key: ObjectId, uid: str) -> dict[str, str]:
    known = _KINDS.get(key.kind)
    kind, version = (known.served or known.kind, known.version) if known is not None else (key.kind, "")
    fields = {
        "apiVersion": version,
        "kind": kind,
        "namespace": key.namespace,
        "name": key.name,
        "uid": uid,
    }
    return {name: value for name, value in fields.items() if value}


def _path(key: ObjectId, name: str = "") -> str:
    path = f"/apis/{VERSION}/namespaces/{key.namespace or CLUSTER_NAMESPACE}/events"
    return f"{path}/{name}" if name else path


def _count(event: dict[str, Any]) -> int:
    series = event.get("series")
    count = series.get("count") if isinstance(series, dict) else None
    return count if isinstance(count, int) else 1
