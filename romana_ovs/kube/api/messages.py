"""What the controller and its Kubernetes process say to each other: small frozen values in length-prefixed frames.

A frame is four bytes of length and a pickle. Both ends are this program, on pipes that nobody else holds; nothing
that a stranger wrote is ever unpickled.
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
    """The other end of a pipe does not speak frames: our own mistake."""


# The controller to its process.


@dataclass(frozen=True, slots=True)
class Start:
    """The first message: which API server, and what to list and watch there. `name` is who we are in its logs."""

    source: ApiSource
    settings: Settings
    resources: tuple[Resource, ...]
    name: str = ""


# The process to the controller.


@dataclass(frozen=True, slots=True)
class Update:
    """One object as it is now; `there` is False when it is gone.

    `version` is its resourceVersion, opaque but for order where both are numbers; `generation` counts changes of
    its spec. `value` is None when it is invalid, and then `fallback` may stand in for it (see Item). `raw` is the
    whole object, of a resource that is not decoded.
    """

    id: ObjectId
    uid: str = ""
    version: str = ""
    generation: int = 0
    there: bool = True
    value: KubeObject | None = None
    fallback: Policy | None = None
    problems: tuple[Problem, ...] = ()
    raw: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Began:
    """A listing of `resource` begins: what is not named before its Listed is gone."""

    resource: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Objects of `resource`, in a listing or as they change; `kept` are there and as they were told before.

    `at` is when they came, in seconds of the machine's monotonic clock.
    """

    resource: str
    updates: tuple[Update, ...] = ()
    kept: tuple[ObjectId, ...] = ()
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Listed:
    """The listing of `resource` is complete."""

    resource: str


@dataclass(frozen=True, slots=True)
class Health:
    """How it goes with `subject` (a resource, a lease, ...): what is wrong, in a sentence, or nothing."""

    subject: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the process's log; `level` as in logging."""

    level: int
    logger: str
    text: str


def frame(message: object) -> bytes:
    """`message` as it goes through a pipe."""
    body = io.BytesIO()
    body.write(b"\0" * _LENGTH.size)
    pickler = pickle.Pickler(body, 5)
    pickler.dispatch_table = _COMPACT
    pickler.dump(message)
    with body.getbuffer() as view:
        _LENGTH.pack_into(view, 0, len(view) - _LENGTH.size)
    return body.getvalue()


class FrameReader:
    """Takes bytes as they come out of a pipe and gives the messages that are complete."""

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
    # Thousands of new objects at once, none of them garbage: looking for some takes eight times as long as the rest.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return pickle.loads(body)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError, ValueError) as error:
        raise FrameError(f"a frame that is no message: {error}") from error
    finally:
        if collecting:
            gc.enable()


def _by_fields(kind: type) -> Callable[[Any], tuple[type, tuple[Any, ...]]]:
    values = attrgetter(*(field.name for field in fields(kind)))
    return lambda value: (kind, values(value))


# What there are thousands of: by the arguments of their constructors, which is shorter and several times quicker.
_COMPACT: Mapping[type, Callable[[Any], Any]] = MappingProxyType(
    {
        **{kind: _by_fields(kind) for kind in (Update, Pod, ContainerPort)},
        IPv4Address: lambda address: (IPv4Address, (int(address),)),
        Labels: lambda labels: (Labels, (dict(labels),)),
    }
)
