"""What tests of a split cluster check and send: policies, traffic, and the numbers that a registry published."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from romana_ovs.kube.api.messages import ObjectsObserved, Start
from romana_ovs.kube.api.resources import ALLOCATIONS
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from tests.support.kubernetes_process import kubernetes_process
from tests.support.live_cluster import Traffic
from tests.support.split_cluster import SplitCluster, SplitController


def only_from(app: str, target: str, *ports: int) -> dict[str, Any]:
    """A policy's spec: into pods of `target`, only from pods of `app`, at these ports."""
    rule: dict[str, Any] = {"from": [{"podSelector": {"matchLabels": {"app": app}}}]}
    if ports:
        rule["ports"] = [{"port": port} for port in ports]
    return {"podSelector": {"matchLabels": {"app": target}}, "policyTypes": ["Ingress"], "ingress": [rule]}


@contextmanager
def flowing(cluster: SplitCluster, source: PodKey, *targets: PodKey) -> Iterator[Traffic]:
    """UDP that goes well already, from one pod to others."""
    tasks = [{"kind": "udp", "address": cluster.address(target), "port": 80} for target in targets]
    traffic = Traffic(cluster.pods.running[source], tasks)
    try:
        traffic.flowing()
        yield traffic
    finally:
        traffic.close()


def numbers(cluster: SplitCluster) -> dict[str, Any]:
    """Everything that is given once only."""
    allocation = cluster.allocation()
    return {name: value for name, value in allocation.items() if name not in ("epoch", "writer", "revision")}


@contextmanager
def published(cluster: SplitCluster) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Every Allocation that there was since, up to the one that there is when the function is called."""
    seen: list[dict[str, Any]] = []

    def on_message(message: object) -> None:
        if isinstance(message, ObjectsObserved):
            seen.extend(dict(update.raw["spec"]) for update in message.updates if update.raw is not None)

    def so_far() -> list[dict[str, Any]]:
        last = cluster.allocation()
        if last not in seen:
            process.until(lambda _: last in seen, anew=True)
        return seen

    with kubernetes_process(on_message) as process:
        process.send(Start(ApiSource(str(cluster.plane.kubeconfig)), Settings(), (ALLOCATIONS,)))
        yield so_far


def leads(controller: SplitController) -> bool:
    """Whether this process leads, by its last line of the log about it."""
    return re.findall("this process (is now|is no longer) the registry", controller.log)[-1:] == ["is now"]


def consistent(history: list[dict[str, Any]]) -> None:
    """Fails the test where anything was given twice, or taken from who has it."""
    tenants: dict[str, list[Any]] = {}
    hosts: dict[str, int] = {}
    for before, now in itertools.pairwise(history):
        assert before["epoch"] <= now["epoch"] and before["revision"] < now["revision"]
        assert before["writer"] == now["writer"] or before["epoch"] < now["epoch"]
    for one in history:
        runs = [range(base, base + size) for tenant in one["tenants"] for base, size in tenant["segmentRanges"]]
        given = [index for run in runs for index in run]
        assert len(set(given)) == len(given)
        assert len(set(one["hosts"].values())) == len(one["hosts"])
        for tenant in one["tenants"]:
            had = tenants.get(tenant["name"], [])
            assert tenant["segmentRanges"][: len(had)] == had
            tenants[tenant["name"]] = tenant["segmentRanges"]
        assert {**one["hosts"], **hosts} == one["hosts"]
        hosts = one["hosts"]
