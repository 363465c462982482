"""List, then watch, one resource: what to ask the API server next, and what its answers mean. No I/O, no clock.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ (efficient detection of changes, retrieving
large results sets in chunks, resource versions).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from romana_ovs.kube.api.backoff import Backoff
from romana_ovs.kube.api.messages import Began, Health, Listed, Said, Seen, Update
from romana_ovs.kube.api.object_decoder import Decode, head_of
from romana_ovs.kube.api.resources import Resource
from romana_ovs.kube.api.responses import parsed, refusal, told
from romana_ovs.kube.decode.objects import ObjectId, is_older
from romana_ovs.model.errors import ApiError, BusyError, ExpiredError, MissingError, RefusedError, TornError

PAGE = 500
"""Objects that one answer of a listing may hold."""
PORTION = 100
"""Objects of a page that are told in one message: each may have 1.5 MiB, and a frame takes 256."""
WATCH_SECONDS = 290
"""Until the server ends a watch, to which chance adds up to as much again: reconnecting is spread over time."""
GRACE_SECONDS = 30.0
"""How much longer than that we wait for the server to do so."""
STEADY_SECONDS = 10.0
"""A watch that lasted this long was no failure."""
ABSENT_SECONDS = 30.0
"""Between two looks for a resource that is not installed."""
_CONFIRMATIONS = 3
"""Times in a row that a resource must be missing before it counts as empty: an API server that has just started may
not know its definitions yet, and who reads then has no memory of objects either."""

Message = Began | Seen | Listed | Health | Said


@dataclass(frozen=True, slots=True)
class ListPage:
    """Ask for one page of a listing."""

    path: str
    query: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask for a stream of changes; it is dead when it lasts longer than `deadline` seconds."""

    path: str
    query: Mapping[str, str | int]
    deadline: float


class Reflector:
    """The state of one resource: how far the listing is, or from which version the watch goes on.

    `ask` says what to ask. What came is given to `page`, or `line` by line and then `ended`; what went wrong to
    `failed`. They yield, or return, what there is to tell. Objects that a listing finds as they were told before are
    not decoded again. `jitter` is a fraction that chance gives, from 0 to 1.
    """

    def __init__(self, resource: Resource, decode: Decode, backoff: Backoff, *, jitter: float) -> None:
        self.resource = resource
        self.name = str(resource)
        self._decode = decode
        self._backoff = backoff
        self._watch_seconds = int(WATCH_SECONDS * (1 + jitter))
        self._memory: dict[ObjectId, tuple[str, str]] = {}
        """uid and resourceVersion of every object that was told of and not taken back."""
        self._seen: set[ObjectId] = set()
        """Objects that the listing in progress has named."""
        self._version = ""
        """Where the watch goes on, empty while listing."""
        self._continue = ""
        self._expired = 0
        self._missing = 0
        self._trouble = ""
        self._begun = False
        """Whether the server has begun to answer the watch."""
        self._fickle = False
        """Whether the last watch began, and failed soon: that another one begins is no sign of health then."""
        self.listed = False

    def ask(self) -> ListPage | Watch:
        """What to ask next."""
        self._begun = False
        query: dict[str, str | int] = {"fieldSelector": self.resource.fields} if self.resource.fields else {}
        if self._version:
            # One that just broke off is tried for as long as shows that it is well: it may have nothing to say.
            seconds = int(STEADY_SECONDS) + 1 if self._fickle else self._watch_seconds
            query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": seconds}
            query["resourceVersion"] = self._version
            return Watch(self.resource.path, query, seconds + GRACE_SECONDS)
        # A listing that twice took longer than its snapshot lives is asked for in one piece.
        if self._expired < 2:
            query["limit"] = PAGE
        if self._continue:
            query["continue"] = self._continue
        return ListPage(self.resource.path, query)

    def page(self, value: object, at: float) -> Iterator[Message]:
        """What a page says; `at` is when it came. Raises TornError when it is no page of a list."""
        metadata = value.get("metadata") if isinstance(value, dict) else None
        items = value.get("items") if isinstance(value, dict) else None
        if not isinstance(metadata, dict) or not isinstance(items, list | None):
            raise TornError(f"{self.resource.path}: the answer is no list")
        version, rest = metadata.get("resourceVersion"), metadata.get("continue") or ""
        if not isinstance(version, str) or not version or not isinstance(rest, str):
            raise TornError(f"{self.resource.path}: the list has no resourceVersion")
        if not self._continue:
            self._seen = set()
            yield Began(self.name)
        for start in range(0, len(items or ()) or 1, PORTION):
            yield self._objects((items or [])[start : start + PORTION], at)
        self._continue = rest
        if not rest:
            self._memory = {key: self._memory[key] for key in self._seen}
            self._seen = set()
            self._version, self._expired, self._missing, self.listed = version, 0, 0, True
            yield Listed(self.name)
            yield from self._well()

    def _objects(self, items: list[Any], at: float) -> Seen:
        updates, kept = [], []
        for value in items:
            head = head_of(value, self.resource)
            if head is None:
                raise TornError(f"{self.resource.path}: the list holds something that is no object")
            self._seen.add(head.id)
            if self._memory.get(head.id) == (head.uid, head.version):
                kept.append(head.id)
            else:
                self._memory[head.id] = (head.uid, head.version)
                updates.append(self._decode(value, head))
        return Seen(self.name, tuple(updates), tuple(kept), at)

    def line(self, data: bytes, at: float) -> Iterator[Message]:
        """What one line of the watch says. Raises ApiError: the line is torn, or says that the watch has failed."""
        event = parsed(data)
        kind, value = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
        if kind == "ERROR":
            raise self._error(value)
        if kind == "BOOKMARK":
            self._version = _version_of(value) or self._version
            yield from self._well()
            return
        head = head_of(value, self.resource)
        if kind not in ("ADDED", "MODIFIED", "DELETED") or head is None:
            yield self._said(logging.WARNING, f"an event of type {told(str(kind))} is not understood and passed over")
            return
        if is_older(head.version, self._version):
            return
        self._version = head.version or self._version
        if kind == "DELETED":
            self._memory.pop(head.id, None)
            update = Update(head.id, head.uid, head.version, there=False)
        else:
            self._memory[head.id] = (head.uid, head.version)
            update = self._decode(value, head)
        yield Seen(self.name, (update,), (), at)
        yield from self._well()

    def _error(self, status: object) -> ApiError:
        """What an ERROR event means; its object is a Status."""
        fields = status if isinstance(status, dict) else {}
        code, message = fields.get("code"), fields.get("message")
        number = code if isinstance(code, int) else 500
        said = message.encode() if isinstance(message, str) else b""
        return refusal(number, said, asked=f"GET {self.resource.path}: watch")

    def ended(self, lasted: float) -> float:
        """The server ended the watch after `lasted` seconds; returns how many to wait before asking again."""
        if lasted >= STEADY_SECONDS:
            self._backoff.succeeded()
            self._fickle = False
            return 0.0
        return self._backoff.failed()

    def failed(self, error: ApiError, lasted: float) -> tuple[tuple[Message, ...], float]:
        """What to tell of `error`, which came after `lasted` seconds, and how many to wait before asking again."""
        if lasted >= STEADY_SECONDS and self._version:
            self._backoff.succeeded()
        self._fickle = self._begun and lasted < STEADY_SECONDS
        listing = not self._version
        if isinstance(error, ExpiredError):
            self._relist()
            self._expired += listing
        elif isinstance(error, MissingError):
            self._relist()
            if self.resource.installed and listing:
                return self._absent()
        elif isinstance(error, RefusedError):
            self._relist()
        wait = self._backoff.failed(error.retry_after)
        # Everyday life: a server restarts, or asks for a second until it is ready; a version expires.
        first = self._backoff.failures == 1
        quiet = isinstance(error, ExpiredError) or (first and isinstance(error, TornError | BusyError))
        return () if quiet else tuple(self._tell(f"{self.name}: {error}")), wait

    def _relist(self) -> None:
        self._version = self._continue = ""

    def _absent(self) -> tuple[tuple[Message, ...], float]:
        """The resource is not installed: when that is certain it is empty."""
        self._missing += 1
        if (self._memory or not self.listed) and self._missing < _CONFIRMATIONS:
            return (), self._backoff.failed()
        self._backoff.succeeded()
        messages = [*self._well()]
        if self._memory or not self.listed:
            messages += [self._said(logging.INFO, "is not installed, so there are none")]
            messages += [Began(self.name), Listed(self.name)]
        self._memory, self.listed = {}, True
        return tuple(messages), ABSENT_SECONDS

    def opened(self) -> Iterator[Message]:
        """What there is to tell when the server has begun to answer a watch."""
        self._begun = True
        if not self._fickle:
            yield from self._well()

    def _well(self) -> Iterator[Message]:
        self._fickle = False
        if self._trouble:
            self._trouble = ""
            yield Health(self.name)

    def _said(self, level: int, text: str) -> Said:
        return Said(level, "romana_ovs.follow", f"{self.name}: {text}")

    def _tell(self, sentence: str) -> Iterator[Message]:
        if sentence != self._trouble:
            self._trouble = sentence
            yield Health(self.name, sentence)


def _version_of(value: object) -> str:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""
