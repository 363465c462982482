"""Isolates compile errors: a pod or group whose flows cannot be compiled gets none, and all others get theirs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, MutableMapping

from romana_ovs.model.errors import PipelineError
from romana_ovs.pipeline.flow import Flow

Section = tuple[Flow, ...]

_OF_PODS = ("spoof guard", "translated", "route", "metering")
"""Sections of one pod. Without all of them it neither sends nor receives."""
_OF_GROUPS = ("deferred", "server", "client")
"""Sections of one group. Without them it admits nothing: a packet that matches no row is denied."""
MAX_ACTIONS = 2500
"""Limit of actions in a flow, mostly of 16 bytes each: more might exceed the 65,535 bytes of an OpenFlow message."""


def closed_because(name: Hashable, error: Exception) -> str:
    """A sentence: why the section `name` is empty. Raises `error` if the section is not of a single pod or group."""
    if not isinstance(name, tuple) or name[0] not in (*_OF_PODS, *_OF_GROUPS):
        raise error
    reason = str(error) if isinstance(error, PipelineError) else repr(error)
    whose = "pod" if name[0] in _OF_PODS else f"{name[0]} group"
    return f"{whose} {name[1]} is closed, as its flows cannot be compiled: {reason}"


def close_pods(sections: MutableMapping[Hashable, Section], failures: Iterable[Hashable]) -> None:
    """Empties all sections of pods of which one could not be compiled."""
    for name in failures:
        if isinstance(name, tuple) and name[0] in _OF_PODS:
            sections.update(dict.fromkeys({(kind, name[1]) for kind in _OF_PODS} & sections.keys(), ()))


def sendable(section: Section) -> Section:
    """`section`. Raises PipelineError when one of its flows does not fit into an OpenFlow message."""
    for item in section:
        if len(item.actions) > MAX_ACTIONS:
            raise PipelineError(f"a flow of table {item.table} has {len(item.actions)} actions ({item.origin})")
    return section
