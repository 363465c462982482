"""UIDs for pods of a folder whose manifests give none: a pod that is deleted and made anew is another pod.

An API server gives every object a UID. A folder has only names, so whoever follows one remembers which pods there were:
a pod that is missing in one reading and there again in a later one is not the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from uuid import uuid4

from romana_ovs.model.objects import Pod, PodKey


def _random() -> str:
    return str(uuid4())


class PodUids:
    """The UIDs of one folder's pods, from one reading to the next."""

    def __init__(self, known: Mapping[PodKey, str], new: Callable[[], str] = _random) -> None:
        """`known` are those that pods had when they were read last, as far as that was saved; `new` makes one up."""
        self._uids: dict[PodKey, str] = {key: uid for key, uid in known.items() if uid}
        self._new = new

    def tell(self, pods: Mapping[PodKey, Pod]) -> dict[PodKey, Pod]:
        """`pods`, all that a reading found, each with its UID: the manifest's own, or else that of the last reading."""
        self._uids = {key: pod.uid or self._uids.get(key) or self._new() for key, pod in pods.items()}
        return {key: pod if pod.uid else replace(pod, uid=self._uids[key]) for key, pod in pods.items()}
