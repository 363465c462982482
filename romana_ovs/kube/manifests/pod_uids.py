"""Gives UIDs to pods of a folder whose manifests have none, so that a pod that is deleted and created again is new.

An API server gives every object a UID. A folder has only names, so the pods of the last reading are kept: a pod
that is missing in one reading and present in a later one is another pod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from uuid import uuid4

from romana_ovs.model.objects import Pod, PodKey


def _random() -> str:
    return str(uuid4())


class PodUids:
    """The UIDs of the pods of one folder, from one reading to the next."""

    def __init__(self, known: Mapping[PodKey, str], new: Callable[[], str] = _random) -> None:
        """`known` are the saved UIDs of the last reading; `new` generates one."""
        self._uids: dict[PodKey, str] = {key: uid for key, uid in known.items() if uid}
        self._new = new

    def assign(self, pods: Mapping[PodKey, Pod]) -> dict[PodKey, Pod]:
        """All `pods` of a reading, each with a UID: of the manifest, else of the last reading, else a new one."""
        self._uids = {key: pod.uid or self._uids.get(key) or self._new() for key, pod in pods.items()}
        return {key: pod if pod.uid else replace(pod, uid=self._uids[key]) for key, pod in pods.items()}
