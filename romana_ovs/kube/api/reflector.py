"""Lists, then watches one resource: decides on the next request, and interprets the responses. Pure.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ (efficient detection of changes, retrieving
large results sets in chunks, resource versions).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from romana_ovs.backoff import Backoff
from romana_ovs.kube.api.messages import Health, ListCompleted, ListStarted, LogLine, ObjectsObserved, Update
from romana_ovs.kube.api.object_decoder import Decode, object_meta
from romana_ovs.kube.api.resources import Resource
from romana_ovs.kube.api.responses import api_error, parsed, sanitized
from romana_ovs.kube.decode.objects import ObjectId, is_older
from romana_ovs.model.errors import ApiError, BusyError, ExpiredError, MissingError, RefusedError, TornError

PAGE = 500
"""Objects in one page of a listing."""
CHUNK = 100
"""Objects in one message to the controller: each may have 1.5 MiB, and a frame takes 256 MiB."""
WATCH_SECONDS = 290
"""Seconds after which the server ends a watch, plus up to as many at random, so that reconnects are spread."""
GRACE_SECONDS = 30.0
"""Seconds that we wait longer than that."""
STABLE_SECONDS = 10.0
"""Seconds after which a watch counts as successful."""
NOT_INSTALLED_SECONDS = 30.0
"""Seconds between two attempts to list a resource that is not installed."""
_ABSENCE_CONFIRMATIONS = 3
"""Consecutive 404 responses after which a resource counts as not installed, and so as empty: an API server that has
just started may not know its CRDs yet."""

Message = ListStarted | ObjectsObserved | ListCompleted | Health | LogLine


@dataclass(frozen=True, slots=True)
class ListPage:
    """A request for one page of a listing."""

    path: str
    query: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch request, which times out after `deadline` seconds."""

    path: str
    query: Mapping[str, str | int]
    deadline: float


class Reflector:
    """The state of one resource: the progress of its listing, or the version from which the watch continues.

    `next_request` is the request to send. Its results go to `on_page`, or `on_connected`, `on_event` and `on_ended`;
    errors to `on_failed`. These yield, or return, the messages for the controller. Objects that a new listing shows
    unchanged are not decoded again. `jitter` is a random fraction from 0 to 1.
    """

    def __init__(self, resource: Resource, decode: Decode, backoff: Backoff, *, jitter: float) -> None:
        self.resource = resource
        self.name = str(resource)
        self._decode = decode
        self._backoff = backoff
        self._watch_seconds = int(WATCH_SECONDS * (1 + jitter))
        self._sent: dict[ObjectId, tuple[str, str]] = {}
        """UID and resourceVersion of every object that the controller knows."""
        self._in_listing: set[ObjectId] = set()
        """Objects of the listing in progress."""
        self._version = ""
        """The resourceVersion from which the watch continues; empty while listing."""
        self._continue = ""
        self._expired = 0
        self._missing = 0
        self._reported_error = ""
        self._connected = False
        """Whether the server has begun to respond to the watch."""
        self._flapping = False
        """Whether the last watch connected and soon failed: then a new connection alone is no sign of recovery."""
        self.listed = False

    def next_request(self) -> ListPage | Watch:
        """The next request."""
        self._connected = False
        query: dict[str, str | int] = {"fieldSelector": self.resource.fields} if self.resource.fields else {}
        if self._version:
            # After a watch that failed soon, a short one shows whether it works: there may be no events to show it.
            seconds = int(STABLE_SECONDS) + 1 if self._flapping else self._watch_seconds
            query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": seconds}
            query["resourceVersion"] = self._version
            return Watch(self.resource.path, query, seconds + GRACE_SECONDS)
        # A listing whose snapshot expired twice before it was complete is requested without pages.
        if self._expired < 2:
            query["limit"] = PAGE
        if self._continue:
            query["continue"] = self._continue
        return ListPage(self.resource.path, query)

    def on_page(self, value: object, at: float) -> Iterator[Message]:
        """The messages for a page received at `at`. Raises TornError when it is no page of a list."""
        metadata = value.get("metadata") if isinstance(value, dict) else None
        items = value.get("items") if isinstance(value, dict) else None
        if not isinstance(metadata, dict) or not isinstance(items, list | None):
            raise TornError(f"{self.resource.path}: the answer is no list")
        version, rest = metadata.get("resourceVersion"), metadata.get("continue") or ""
        if not isinstance(version, str) or not version or not isinstance(rest, str):
            raise TornError(f"{self.resource.path}: the list has no resourceVersion")
        if not self._continue:
            self._in_listing = set()
            yield ListStarted(self.name)
        for start in range(0, len(items or ()) or 1, CHUNK):
            yield self._objects((items or [])[start : start + CHUNK], at)
        self._continue = rest
        if not rest:
            self._sent = {key: self._sent[key] for key in self._in_listing}
            self._in_listing = set()
            self._version, self._expired, self._missing, self.listed = version, 0, 0, True
            yield ListCompleted(self.name)
            yield from self._recovered()

    def _objects(self, items: list[Any], at: float) -> ObjectsObserved:
        updates, kept = [], []
        for value in items:
            meta = object_meta(value, self.resource)
            if meta is None:
                raise TornError(f"{self.resource.path}: an entry of the list is no object")
            self._in_listing.add(meta.id)
            if self._sent.get(meta.id) == (meta.uid, meta.version):
                kept.append(meta.id)
            else:
                self._sent[meta.id] = (meta.uid, meta.version)
                updates.append(self._decode(value, meta))
        return ObjectsObserved(self.name, tuple(updates), tuple(kept), at)

    def on_event(self, data: bytes, at: float) -> Iterator[Message]:
        """The messages for one event of the watch. Raises ApiError when it is incomplete, or an error event."""
        event = parsed(data)
        kind, value = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
        if kind == "ERROR":
            raise self._error(value)
        if kind == "BOOKMARK":
            self._version = _version_of(value) or self._version
            yield from self._recovered()
            return
        meta = object_meta(value, self.resource)
        if kind not in ("ADDED", "MODIFIED", "DELETED") or meta is None:
            yield self._log(logging.WARNING, f"an event of type {sanitized(str(kind))} is unknown and ignored")
            return
        if is_older(meta.version, self._version):
            return
        self._version = meta.version or self._version
        if kind == "DELETED":
            self._sent.pop(meta.id, None)
            update = Update(meta.id, meta.uid, meta.version, exists=False)
        else:
            self._sent[meta.id] = (meta.uid, meta.version)
            update = self._decode(value, meta)
        yield ObjectsObserved(self.name, (update,), (), at)
        yield from self._recovered()

    def _error(self, status: object) -> ApiError:
        """The error of an ERROR event, whose object is a Status."""
        fields = status if isinstance(status, dict) else {}
        code, message = fields.get("code"), fields.get("message")
        number = code if isinstance(code, int) else 500
        body = message.encode() if isinstance(message, str) else b""
        return api_error(number, body, request=f"GET {self.resource.path}: watch")

    def on_ended(self, lasted: float) -> float:
        """The server ended the watch after `lasted` seconds; returns the seconds until the next request."""
        if lasted >= STABLE_SECONDS:
            self._backoff.succeeded()
            self._flapping = False
            return 0.0
        return self._backoff.failed()

    def on_failed(self, error: ApiError, lasted: float) -> tuple[tuple[Message, ...], float]:
        """The messages for `error`, which occurred after `lasted` seconds, and the seconds until the next request."""
        if lasted >= STABLE_SECONDS and self._version:
            self._backoff.succeeded()
        self._flapping = self._connected and lasted < STABLE_SECONDS
        listing = not self._version
        if isinstance(error, ExpiredError):
            self._relist()
            self._expired += listing
        elif isinstance(error, MissingError):
            self._relist()
            if self.resource.custom and listing:
                return self._not_installed()
        elif isinstance(error, RefusedError):
            self._relist()
        wait = self._backoff.failed(error.retry_after)
        # Not reported, because normal: a server restarts, or is not ready yet; a version expires.
        first = self._backoff.failures == 1
        quiet = isinstance(error, ExpiredError) or (first and isinstance(error, TornError | BusyError))
        return () if quiet else tuple(self._report(f"{self.name}: {error}")), wait

    def _relist(self) -> None:
        self._version = self._continue = ""

    def _not_installed(self) -> tuple[tuple[Message, ...], float]:
        """The resource is not installed; once that is certain, it counts as empty."""
        self._missing += 1
        if (self._sent or not self.listed) and self._missing < _ABSENCE_CONFIRMATIONS:
            return (), self._backoff.failed()
        self._backoff.succeeded()
        messages = [*self._recovered()]
        if self._sent or not self.listed:
            messages += [self._log(logging.INFO, "is not installed; treated as empty")]
            messages += [ListStarted(self.name), ListCompleted(self.name)]
        self._sent, self.listed = {}, True
        return tuple(messages), NOT_INSTALLED_SECONDS

    def on_connected(self) -> Iterator[Message]:
        """The messages when the server has begun to respond to a watch."""
        self._connected = True
        if not self._flapping:
            yield from self._recovered()

    def _recovered(self) -> Iterator[Message]:
        self._flapping = False
        if self._reported_error:
            self._reported_error = ""
            yield Health(self.name)

    def _log(self, level: int, text: str) -> LogLine:
        return LogLine(level, "romana_ovs.reflector", f"{self.name}: {text}")

    def _report(self, text: str) -> Iterator[Message]:
        if text != self._reported_error:
            self._reported_error = text
            yield Health(self.name, text)


def _version_of(value: object) -> str:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""
