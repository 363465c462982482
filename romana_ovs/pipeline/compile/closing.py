"""What happens when the flows of one pod or group cannot be made: that one is closed, and everybody else's are made."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, MutableMapping

from romana_ovs.model.errors import MISTAKES, PipelineError
from romana_ovs.pipeline.flow import Flow

Section = tuple[Flow, ...]

_OF_PODS = ("guard", "place", "limits")
"""Sections of one pod, without all of which nobody reaches it and it reaches nobody."""
_OF_GROUPS = ("open", "server", "client")
"""Sections of one group, without which it admits nothing: a packet that finds no row is refused."""
MOST_ACTIONS = 2500
"""Actions of a flow, of 16 bytes mostly: more might be more than the 65,535 bytes of an OpenFlow message."""


def closing(name: Hashable, make: Callable[[], Section], failures: MutableMapping[Hashable, str]) -> Section:
    """The section `name` as `make` returns it; when it raises and is of one only, none and a sentence in `failures`.

    Raises what `make` raises of any other section.
    """
    try:
        return make()
    except MISTAKES as error:  # About one of them it is nothing that others may suffer from.
        if not isinstance(name, tuple) or name[0] not in (*_OF_PODS, *_OF_GROUPS):
            raise
        said = str(error) if isinstance(error, PipelineError) else repr(error)
        whose = "pod" if name[0] in _OF_PODS else f"{name[0]} group"
        failures[name] = f"{whose} {name[1]} is closed, as its flows cannot be made: {said}"
        return ()


def close_pods(sections: MutableMapping[Hashable, Section], failures: Iterable[Hashable]) -> None:
    """Take all rows of the pods of which some could not be made."""
    for name in failures:
        if isinstance(name, tuple) and name[0] in _OF_PODS:
            sections.update(dict.fromkeys({(kind, name[1]) for kind in _OF_PODS} & sections.keys(), ()))


def sendable(section: Section) -> Section:
    """`section`. Raises PipelineError when one of its flows has no room in a message."""
    for item in section:
        if len(item.actions) > MOST_ACTIONS:
            raise PipelineError(f"a flow of table {item.table} has {len(item.actions)} actions ({item.origin})")
    return section
