"""A folder of broken manifests, each with every message that it has to give, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from romana_ovs.kube.manifests.folder import FolderContent, read_bytes
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.objects import KubernetesPolicy, RomanaPolicy
from romana_ovs.model.settings import Settings
from tests.support.manifests import BY_OWNER

FOLDER = Path(__file__).parents[2] / "broken"
FILES = sorted(FOLDER.iterdir())
EXPECT = b"# expect: "

# JSON has no comments to say it in.
JSON = {
    "json-broken.json": ["#1 |  |  |  | line 2: no valid JSON: Expecting value; what follows is not read"],
    "json-key-twice.json": ["#1 | Pod | b | metadata.name | is given twice, again in line 1"],
    "json-number.json": ["#1 |  |  |  | line 1: 1e400 is no number that JSON has; what follows is not read"],
}


def read(path: Path) -> ClusterSnapshot:
    """The cluster of a folder that has this file alone."""
    data = path.read_bytes()
    settings = BY_OWNER if b"# settings: pod-label:owner" in data else Settings()
    return ManifestStore(settings).apply(FolderContent("folder", (read_bytes(path.name, data, settings),)))


def expected(path: Path) -> list[str]:
    """The messages that a file asks for."""
    if path.suffix == ".json":
        return JSON[path.name]
    return [
        line.removeprefix(EXPECT).decode("utf-8", "replace")
        for line in path.read_bytes().splitlines()
        if line.startswith(EXPECT)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_message_and_no_other(path: Path) -> None:
    problems = read(path).problems
    told = [
        " | ".join((f"#{one.document}" if one.document else "-", one.kind, one.name, one.field, one.reason))
        for one in problems
    ]
    assert told == expected(path)
    assert told
    assert {problem.file for problem in problems} == {path.name}


def test_there_are_enough() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name.startswith(("policy-", "romana-", "demo-"))],
    ids=lambda path: path.name,
)
def test_a_broken_policy_isolates(path: Path) -> None:
    if path.name in ("policy-namespace-bad.yaml",):  # It cannot be told whom it should isolate.
        assert not read(path).cluster.policies
        return
    (policy,) = read(path).cluster.policies.values()
    if path.name in ("policy-peer-empty.yaml", "romana-empty-source.yaml"):  # These have a meaning: nobody.
        assert isinstance(policy, (KubernetesPolicy, RomanaPolicy))
        return
    if isinstance(policy, KubernetesPolicy):
        assert (policy.ingress, policy.egress) == ((), ())
        assert policy.directions
    else:
        assert policy.rules == ()


@pytest.mark.parametrize("path", [path for path in FILES if path.name.startswith("pod-")], ids=lambda path: path.name)
def test_a_broken_pod_is_absent(path: Path) -> None:
    pods = read(path).cluster.pods
    # What only a scheduler or the kubelet would mind does not concern the network.
    assert bool(pods) == (path.name in ("pod-no-containers.yaml", "pod-node-missing.yaml"))
