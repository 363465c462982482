"""The kubelets of emulated nodes, as an API server sees them: nodes that are ready, pods that run or have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from romana_ovs.kube.api.client import Api
from romana_ovs.model.errors import ApiError, ConflictError, MissingError, SetupError
from romana_ovs.model.objects import PodKey, same_uid
from romana_ovs_emulate.kubelet_objects import (
    EMULATED,
    LEASES,
    node_lease,
    node_object,
    node_status,
    pod_status,
    unready,
)
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.pods import PodPlace
from romana_ovs_emulate.runs import Run, is_live

HEARTBEAT_SECONDS = 10.0
"""How often nodes show that they live."""
RETRY_SECONDS = 1.0
"""Until what the API server did not take is tried again."""
FINISHED = ("Succeeded", "Failed")
MERGE = "application/merge-patch+json"
NODES = "/api/v1/nodes"
NODE_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{LEASES}/leases"

Object = Mapping[str, Any]


class Kubelet:
    """Reports for the nodes of one emulation, from any thread; a `reporter.Reporter`.

    `addresses` are the nodes' InternalIPs, by name, as far as they have any. `complain` is told, once, what the API
    server does not take; `ended` is called when other pods are to end than before.
    """

    def __init__(
        self, api: Api, *, addresses: Mapping[str, str], complain: Callable[[str], None], ended: Callable[[], None]
    ) -> None:
        self._api = api
        self._addresses = addresses
        self._complain = complain
        self._ended = ended
        self._complaint = ""
        self._changed = threading.Condition()
        self._dirty = False
        self._closing = False
        self._nodes: tuple[str, ...] = ()
        self._pods: Mapping[PodKey, Object] = {}
        self._running: Mapping[PodKey, PodPlace] = {}
        self._failed: Mapping[PodKey, str] = {}
        self._registered: list[str] = []
        self._announced: dict[str, str] = {}
        """The address that was reported last, by the uid of the pod."""
        self._told_why: dict[str, str] = {}
        """Why a pod cannot be started, as it was reported last, by its uid."""
        self._reporter = threading.Thread(target=self._report, name="kubelet-reports", daemon=True)

    def start(self, run: Run, nodes: Mapping[str, Node]) -> None:
        """Register the nodes of `run`, and report from now on. Raises SetupError, with none of them registered."""
        self._nodes = tuple(nodes)
        try:
            for name in nodes:
                self._register(name, run.id)
        except ApiError as error:
            self._unregister()
            raise SetupError(f"the nodes cannot be registered: {error}") from error
        except SetupError:
            self._unregister()
            raise
        self._reporter.start()

    def close(self) -> None:
        """Report no more, and take the nodes away. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._reporter.ident is not None:
            self._reporter.join()
        self._unregister()

    def take(self, pods: Mapping[PodKey, Object]) -> None:
        """These are the pods that the API server has now."""
        with self._changed:
            before = {key for key, pod in self._pods.items() if _ends(pod)}
            self._pods = pods
            self._touch()
        if {key for key, pod in pods.items() if _ends(pod)} - before:
            self._ended()

    def ran(self, running: Mapping[PodKey, PodPlace]) -> None:
        """These pods run now, with their ports on their bridges."""
        with self._changed:
            self._running = dict(running)
            self._touch()

    def failed(self, reasons: Mapping[PodKey, str]) -> None:
        """These pods, and no others, cannot be started, and why."""
        with self._changed:
            if reasons != self._failed:
                self._failed = dict(reasons)
                self._touch()

    def ending(self, key: PodKey, uid: str = "") -> bool:
        """Whether the pod of this UID (empty: whichever has the name) is to end: the API server waits for its kubelet.

        One that is another by now has ended already.
        """
        pod = self._pods.get(key)
        return pod is not None and same_uid(uid, pod["metadata"]["uid"]) and _ends(pod)

    def _touch(self) -> None:
        self._dirty = True
        self._changed.notify_all()

    def _register(self, name: str, run: str) -> None:
        try:
            self._api.request("POST", NODES, body=node_object(name, run))
        except ConflictError:
            there = self._api.request("GET", f"{NODES}/{name}").json()
            owner = there["metadata"].get("labels", {}).get(EMULATED)
            if owner is None:
                raise SetupError(f"the cluster has a node {name} already, and no emulated one") from None
            if owner != run and is_live(owner):
                raise SetupError(f"node {name} belongs to the emulation {owner}, which goes on") from None
            self._api.request(
                "PATCH", f"{NODES}/{name}", body={"metadata": {"labels": {EMULATED: run}}}, content_type=MERGE
            )
        self._registered.append(name)
        self._beat(name)

    def _unregister(self) -> None:
        for name in self._registered:
            with suppress(ApiError):
                self._api.request("DELETE", f"{NODES}/{name}")
            with suppress(ApiError):
                self._api.request("DELETE", f"{NODE_LEASES}/{name}")
        self._registered.clear()

    def _beat(self, name: str) -> None:
        """Say that a node lives."""
        status = node_status(name, self._addresses.get(name), _now())
        self._api.request("PATCH", f"{NODES}/{name}/status", body={"status": status}, content_type=MERGE)
        lease = node_lease(name, _now(micro=True))
        try:
            self._api.request("PATCH", f"{NODE_LEASES}/{name}", body={"spec": lease["spec"]}, content_type=MERGE)
        except MissingError:
            # The API server makes that namespace by itself, a moment after its start.
            with suppress(MissingError):
                self._api.request("POST", NODE_LEASES, body=lease)

    def _report(self) -> None:
        """Until the end: what is due whenever something changed, and a heartbeat now and then."""
        beaten = time.monotonic()
        while True:
            with self._changed:
                left = max(0.0, beaten + HEARTBEAT_SECONDS - time.monotonic())
                self._changed.wait_for(lambda: self._dirty or self._closing, left)
                if self._closing:
                    return
                self._dirty = False
                due = list(self._due())
            failed = [error for work in due if (error := _attempt(work)) is not None]
            if time.monotonic() - beaten >= HEARTBEAT_SECONDS:
                beaten = time.monotonic()
                failed += [error for name in self._nodes if (error := _attempt(partial(self._beat, name)))]
            self._tell(failed)

    def _tell(self, failed: Sequence[ApiError]) -> None:
        """Complain once of what goes wrong, and have it tried again."""
        text = str(failed[0]) if failed else ""
        if text and text != self._complaint:
            self._complain(f"the API server does not take what the nodes report: {text}")
        self._complaint = text
        if text:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)
                self._dirty = True

    def _due(self) -> Iterator[Callable[[], None]]:
        """What the API server has yet to be told."""
        for key, pod in self._pods.items():
            place, uid = self._running.get(key), pod["metadata"]["uid"]
            another = place is not None and not same_uid(place.uid, uid)
            if pod["spec"].get("nodeName") not in self._nodes:
                continue
            if _ends(pod):
                if place is None:
                    yield partial(self._bury, pod)
            elif key in self._failed and self._told_why.get(uid) != self._failed[key]:
                yield partial(self._excuse, pod, self._failed[key])
            elif place is not None and not another and not self._told(pod, place):
                yield partial(self._announce, pod, place)

    def _told(self, pod: Object, place: PodPlace) -> bool:
        """Whether there is nothing to say of a pod that runs; one that has finished never runs again."""
        status = pod.get("status", {})
        known = status.get("phase") == "Running" and status.get("podIP") == place.address
        finished = status.get("phase") in FINISHED
        if pod["metadata"]["uid"] in self._told_why and not finished:
            return False
        return known or finished or self._announced.get(pod["metadata"]["uid"]) == place.address

    def _announce(self, pod: Object, place: PodPlace) -> None:
        status = pod_status(pod, address=place.address, host=self._addresses.get(place.node), now=_now())
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        with suppress(MissingError, ConflictError):  # gone, or another of the same name: the next change tells
            self._api.request("PATCH", f"{_path(pod)}/status", body=body, content_type=MERGE)
        self._announced[pod["metadata"]["uid"]] = place.address
        self._told_why.pop(pod["metadata"]["uid"], None)

    def _excuse(self, pod: Object, reason: str) -> None:
        """A pod that cannot be started stays what it is, and is not ready."""
        uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase")
        status = {"phase": phase or "Pending", "conditions": [unready(_now(), reason)]}
        with suppress(MissingError, ConflictError):
            body = {"metadata": {"uid": uid}, "status": status}
            self._api.request("PATCH", f"{_path(pod)}/status", body=body, content_type=MERGE)
        self._told_why[uid] = reason

    def _bury(self, pod: Object) -> None:
        """A pod that had to end has: now the API server may forget it."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        with suppress(MissingError, ConflictError):
            self._api.request("DELETE", _path(pod), body=body)
        self._announced.pop(pod["metadata"]["uid"], None)
        self._told_why.pop(pod["metadata"]["uid"], None)


def _attempt(work: Callable[[], None]) -> ApiError | None:
    try:
        work()
    except ApiError as error:
        return error
    return None


def _ends(pod: Object) -> bool:
    return pod["metadata"].get("deletionTimestamp") is not None


def _path(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _now(*, micro: bool = False) -> str:
    """The time as the API writes it (RFC 3339)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
