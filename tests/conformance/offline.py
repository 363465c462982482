"""A case without switches: its manifests decoded by our loader, and what is expected of them as sets of paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

import pytest

from romana_ovs.kube.manifests.folder import FolderContent, read_bytes
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ConnectionEnd
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy.matrix import PodPath
from tests.conformance.states import endpoints, text_of
from tests.conformance.table import CASES
from tests.conformance.words import SHARED, Manifest, Step

NODES = 3
MODES: Mapping[str, Settings] = {
    "plain": Settings(isolation=Isolation.NONE),
    "tenants": Settings(isolation=Isolation.TENANT, shared_tenants=frozenset({SHARED})),
}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_mode = pytest.mark.parametrize("mode", MODES)


class Folder:
    """Manifests over a case's steps, as the controller reads a folder of them: changes are edits."""

    def __init__(self, mode: str) -> None:
        self.settings = MODES[mode]
        self._store = ManifestStore(self.settings)

    def read(self, manifests: Iterable[Manifest]) -> Cluster:
        """The cluster that these manifests make; nothing of it may be refused."""
        content = read_bytes("all.yaml", text_of(manifests).encode(), self.settings)
        loaded = self._store.apply(FolderContent("folder", (content,)), nodes=NODES)
        assert loaded.kept == () and not any(item.value is None for item in content.objects), loaded.problems
        return loaded.cluster


def expected(step: Step, pods: Iterable[str], mode: str) -> set[PodPath]:
    """The open paths between these pods, as the step has it."""
    known = list(pods)
    return {
        PodPath(PodKey(source), PodKey(destination), port)
        for port in step.ports
        for source in known
        for destination in known
        if source != destination and step.allows(source, destination, port, tenants=mode == "tenants")
    }


def end_of(text: str, node_address: Mapping[str, IPv4Address]) -> ConnectionEnd:
    """The end that a claim names: a pod, a node, or an address."""
    if "/" in text:
        return ConnectionEnd(pod=PodKey(text))
    if text in node_address:
        return ConnectionEnd(node=text, address=node_address[text])
    return ConnectionEnd(address=IPv4Address(text))


__all__ = ["Folder", "MODES", "endpoints", "end_of", "every_case", "every_mode", "expected"]
