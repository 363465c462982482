"""Writes Events (events.k8s.io/v1) on objects that are refused; what and when, `EventBook` decides.

Everyone who may read Events in a namespace sees those on its objects, so `Refused.note` must say nothing of others'.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.desired import AllRefused, SomeRefused, sentence
from romana_ovs.kube.api.event_queue import EventBook, Look, Post, Renew, Task
from romana_ovs.kube.api.lease import Fence, clock, micro_time, wall
from romana_ovs.kube.api.resources import NAMESPACES, NODES, PODS, POLICIES, ROMANA_POLICIES, TENANTS
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import ConflictError, DeniedError, MissingError, RefusedError

LOG = logging.getLogger("romana_ovs.events")

VERSION = "events.k8s.io/v1"
CONTROLLER = "romana.io/romana-ovs"
ACTION = "Programming"
"""What we were about when it happened (events.k8s.io/v1 Event.action)."""
CLUSTER_NAMESPACE = "default"
"""Where Events on objects without a namespace are (kubernetes/staging/src/k8s.io/client-go/tools/events)."""
MERGE_PATCH = "application/merge-patch+json"
WRITE_SECONDS = 4.0
IDLE_SECONDS = 1.0
ENDING = "being terminated"
"""What the API server says when it takes nothing new because the namespace is being deleted."""
_KINDS = {each.kind: each for each in (PODS, NAMESPACES, NODES, POLICIES, ROMANA_POLICIES, TENANTS)}


class Events:
    """The job (of a Worker) that tells of refused objects while we lead; `reporter` is the name of this process."""

    def __init__(self, api: Api, reporter: str, fence: Fence) -> None:
        self._api = api
        self._reporter = reporter
        self._fence = fence
        self._book = EventBook()

    def accept(self, message: AllRefused | SomeRefused) -> None:
        """Other objects are refused from now on."""
        if isinstance(message, AllRefused):
            self._book.want_all(message.objects)
        else:
            self._book.want(message.changed)

    def attempt(self) -> float:
        """Do the next thing, if it is time; returns the seconds to wait for the one after. Raises ApiError."""
        if not self._fence.may_write():
            return IDLE_SECONDS
        task = self._book.task(clock())
        if task is None or isinstance(task, float):
            return IDLE_SECONDS if task is None else min(IDLE_SECONDS, task)
        try:
            self._do(task)
        except DeniedError as error:
            # A namespace that is going is that namespace's affair; that we may not write at all is everyone's.
            self._book.refused(task, clock())
            if ENDING not in str(error):
                raise
        except RefusedError as error:
            LOG.error("event on %s: %s", task.id, error)
            self._book.refused(task, clock())
        except Exception:
            # Whatever it is, it may be about this object alone: the next turn is another's.
            self._book.refused(task, clock())
            raise
        return 0.0

    def _do(self, task: Task) -> None:
        """Carry out `task` and tell the book. Raises ApiError."""
        try:
            if isinstance(task, Post):
                body = event_body(task, self._reporter, wall())
                self._api.request("POST", _path(task.id), body=body, deadline=WRITE_SECONDS)
                self._book.posted(task, clock())
            elif isinstance(task, Look):
                # An empty patch reads, and takes no right that we would not need anyway.
                self._book.read(task, _count(self._patch(task, {})))
            else:
                self._patch(task, {"series": {"count": task.count, "lastObservedTime": micro_time(wall())}})
                self._book.renewed(task, clock())
        except ConflictError:
            if isinstance(task, Post):
                self._book.exists(task)
            else:
                self._book.refused(task, clock())
        except MissingError:
            if isinstance(task, Post):
                self._book.refused(task, clock())  # Its namespace is gone; soon it is not wanted any more.
            else:
                self._book.missing(task)

    def _patch(self, task: Look | Renew, body: dict[str, Any]) -> dict[str, Any]:
        path = _path(task.id, task.name)
        answer = self._api.request("PATCH", path, body=body, content_type=MERGE_PATCH, deadline=WRITE_SECONDS)
        return dict(answer.json())


def event_body(task: Post, reporter: str, at: datetime) -> dict[str, Any]:
    """The Event that `task` asks for, reported by the process `reporter` at the time of day `at`."""
    return {
        "apiVersion": VERSION,
        "kind": "Event",
        "metadata": {"name": task.name, "namespace": task.id.namespace or CLUSTER_NAMESPACE},
        "eventTime": micro_time(at),
        "reportingController": CONTROLLER,
        "reportingInstance": sentence(reporter, 128),
        "action": ACTION,
        "reason": task.refused.reason,
        "regarding": _regarding(task.id, task.refused.version.uid),
        "note": sentence(task.refused.note),
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
