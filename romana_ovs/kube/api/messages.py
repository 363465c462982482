"""Defines the messages between the controller and its Kubernetes process, and their framing.

A frame is a length of four bytes and a pickle. Both ends are this program, on private pipes; data of others is never
unpickled.
"""

from __future__ import annotations

import gc
import io
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from romana_ovs.kube.api.resources import Resource
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.decode.objects import KubeObject, ObjectId
from romana_ovs.model.errors import Problem, RomanaError
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import ContainerPort, Pod, Policy
from romana_ovs.model.settings import Settings

LONGEST_FRAME = 256 << 20
"""Bytes."""
_LENGTH = struct.Struct("!I")


class FrameError(RomanaError):
    """Invalid data from the other end of a pipe: an internal error."""


# From the controller to the process.


@dataclass(frozen=True, slots=True)
class Start:
    """The first message: the API server, and what to list and watch there. `name` identifies us in its logs."""

    source: ApiSource
    settings: Settings
    resources: tuple[Resource, ...]
    name: str = ""


# From the process to the controller.


@dataclass(frozen=True, slots=True)
class Update:
    """The present state of one object; `exists` is False when it was deleted.

    `version` is its resourceVersion; `generation` counts changes of its spec. `value` is None when it is invalid; then
    it may have a `fallback` (see DecodedObject). `raw` is the whole object, for a resource that is not decoded.
    """

    id: ObjectId
    uid: str = ""
    version: str = ""
    generation: int = 0
    exists: bool = True
    value: KubeObject | None = None
    fallback: Policy | None = None
    problems: tuple[Problem, ...] = ()
    raw: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ListStarted:
    """A listing of `resource` begins. Objects that are not in it before its ListCompleted are deleted."""

    resource: str


@dataclass(frozen=True, slots=True)
class ObjectsObserved:
    """Objects of `resource`, from a listing or a watch; `kept` exist and are unchanged since they were last sent.

    `at` is when they were received, in seconds of the monotonic clock.
    """

    resource: str
    updates: tuple[Update, ...] = ()
    kept: tuple[ObjectId, ...] = ()
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class ListCompleted:
    """The listing of `resource` is complete."""

    resource: str


@dataclass(frozen=True, slots=True)
class Health:
    """The health of `subject` (a resource, a lease, ...): the present error, or empty."""

    subject: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record of the process; `level` as in logging."""

    level: int
    logger: str
    text: str


def frame(message: object) -> bytes:
    """`message` as a frame."""
    body = io.BytesIO()
    body.write(b"\0" * _LENGTH.size)
    pickler = pickle.Pickler(body, 5)
    pickler.dispatch_table = _COMPACT
    pickler.dump(message)
    with body.getbuffer() as view:
        _LENGTH.pack_into(view, 0, len(view) - _LENGTH.size)
    return body.getvalue()


class FrameReader:
    """Assembles messages from the bytes of a pipe."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that `data` completes. Raises FrameError."""
        self._rest += data
        return list(self._complete())

    def _complete(self) -> Iterator[Any]:
        while len(self._rest) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest)
            if length > LONGEST_FRAME:
                raise FrameError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._rest) < end:
                return
            body = bytes(self._rest[_LENGTH.size : end])
            del self._rest[:end]
            yield _loaded(body)


def _loaded(body: bytes) -> Any:
    # Thousands of new objects, none of them garbage: searching for garbage takes eight times as long as unpickling.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return pickle.loads(body)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError, ValueError) as error:
        raise FrameError(f"invalid message: {error}") from error
    finally:
        if collecting:
            gc.enable()


def _by_fields(kind: type) -> Callable[[Any], tuple[type, tuple[Any, ...]]]:
    values = attrgetter(*(field.name for field in fields(kind)))
    return lambda value: (kind, values(value))


# Frequent types are pickled as constructor arguments, which is shorter and several times faster.
_COMPACT: Mapping[type, Callable[[Any], Any]] = MappingProxyType(
    {
        **{kind: _by_fields(kind) for kind in (Update, Pod, ContainerPort)},
        IPv4Address: lambda address: (IPv4Address, (int(address),)),
        Labels: lambda labels: (Labels, (dict(labels),)),
    }
)
