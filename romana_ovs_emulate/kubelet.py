"""Acts as the kubelets of emulated nodes towards an API server: registers nodes, reports the status of pods."""

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
    LEASE_NAMESPACE,
    node_lease,
    node_object,
    node_status,
    pod_status,
    unready,
)
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.pods import PodPlacement
from romana_ovs_emulate.runs import Run, is_live

HEARTBEAT_SECONDS = 10.0
"""How often nodes renew their Lease and condition Ready, in seconds."""
RETRY_SECONDS = 1.0
"""How long until a failed request to the API server is retried, in seconds."""
FINISHED = ("Succeeded", "Failed")
MERGE = "application/merge-patch+json"
NODES = "/api/v1/nodes"
NODE_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"

Object = Mapping[str, Any]


class Kubelet:
    """Reports for the nodes of one emulation; its methods may be called from any thread. A `reporter.Reporter`.

    `addresses` are the nodes' InternalIPs, by name, as far as they have any. `on_error` is called once with each error
    of the API server, `on_terminating` whenever further pods are terminating.
    """

    def __init__(
        self,
        api: Api,
        *,
        addresses: Mapping[str, str],
        on_error: Callable[[str], None],
        on_terminating: Callable[[], None],
    ) -> None:
        self._api = api
        self._addresses = addresses
        self._on_error = on_error
        self._on_terminating = on_terminating
        self._last_error = ""
        self._changed = threading.Condition()
        self._dirty = False
        self._closing = False
        self._nodes: tuple[str, ...] = ()
        self._pods: Mapping[PodKey, Object] = {}
        self._running: Mapping[PodKey, PodPlacement] = {}
        self._failed: Mapping[PodKey, str] = {}
        self._registered: list[str] = []
        self._reported_addresses: dict[str, str] = {}
        """The address that was reported last, by UID of the pod."""
        self._reported_failures: dict[str, str] = {}
        """Why a pod cannot be started, as reported last, by UID of the pod."""
        self._report_thread = threading.Thread(target=self._report, name="kubelet-reports", daemon=True)

    def start(self, run: Run, nodes: Mapping[str, Node]) -> None:
        """Register the nodes of `run` and start to report. Raises SetupError, with none of them registered."""
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
        self._report_thread.start()

    def close(self) -> None:
        """Stop reporting, and delete the nodes. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._report_thread.ident is not None:
            self._report_thread.join()
        self._unregister()

    def on_pods(self, pods: Mapping[PodKey, Object]) -> None:
        """Replace the known pods by those that the API server has now."""
        with self._changed:
            before = {key for key, pod in self._pods.items() if _is_terminating(pod)}
            self._pods = pods
            self._mark_dirty()
        if {key for key, pod in pods.items() if _is_terminating(pod)} - before:
            self._on_terminating()

    def report_running(self, running: Mapping[PodKey, PodPlacement]) -> None:
        """Report that these pods run, with their ports on their bridges."""
        with self._changed:
            self._running = dict(running)
            self._mark_dirty()

    def report_failed(self, reasons: Mapping[PodKey, str]) -> None:
        """Report that these pods, and no others, cannot be started, and why."""
        with self._changed:
            if reasons != self._failed:
                self._failed = dict(reasons)
                self._mark_dirty()

    def is_terminating(self, key: PodKey, uid: str = "") -> bool:
        """Whether the pod of this UID (empty: whichever has the name) is terminating, so that its kubelet must end it.

        False when a later pod has the name.
        """
        pod = self._pods.get(key)
        return pod is not None and same_uid(uid, pod["metadata"]["uid"]) and _is_terminating(pod)

    def _mark_dirty(self) -> None:
        self._dirty = True
        self._changed.notify_all()

    def _register(self, name: str, run: str) -> None:
        try:
            self._api.request("POST", NODES, body=node_object(name, run))
        except ConflictError:
            node = self._api.request("GET", f"{NODES}/{name}").json()
            owner = node["metadata"].get("labels", {}).get(EMULATED)
            if owner is None:
                raise SetupError(f"the cluster has a node {name} already, which is not an emulated one") from None
            if owner != run and is_live(owner):
                raise SetupError(f"node {name} belongs to the emulation {owner}, which is running") from None
            self._api.request(
                "PATCH", f"{NODES}/{name}", body={"metadata": {"labels": {EMULATED: run}}}, content_type=MERGE
            )
        self._registered.append(name)
        self._heartbeat(name)

    def _unregister(self) -> None:
        for name in self._registered:
            with suppress(ApiError):
                self._api.request("DELETE", f"{NODES}/{name}")
            with suppress(ApiError):
                self._api.request("DELETE", f"{NODE_LEASES}/{name}")
        self._registered.clear()

    def _heartbeat(self, name: str) -> None:
        """Renew the status and the Lease of a node."""
        status = node_status(name, self._addresses.get(name), _now())
        self._api.request("PATCH", f"{NODES}/{name}/status", body={"status": status}, content_type=MERGE)
        lease = node_lease(name, _now(micro=True))
        try:
            self._api.request("PATCH", f"{NODE_LEASES}/{name}", body={"spec": lease["spec"]}, content_type=MERGE)
        except MissingError:
            # The API server creates that namespace itself, shortly after its start.
            with suppress(MissingError):
                self._api.request("POST", NODE_LEASES, body=lease)

    def _report(self) -> None:
        """Send due requests whenever something changes, and heartbeats, until `close`."""
        last_beat = time.monotonic()
        while True:
            with self._changed:
                left = max(0.0, last_beat + HEARTBEAT_SECONDS - time.monotonic())
                self._changed.wait_for(lambda: self._dirty or self._closing, left)
                if self._closing:
                    return
                self._dirty = False
                due = list(self._due())
            failed = [error for work in due if (error := _error_of(work)) is not None]
            if time.monotonic() - last_beat >= HEARTBEAT_SECONDS:
                last_beat = time.monotonic()
                failed += [error for name in self._nodes if (error := _error_of(partial(self._heartbeat, name)))]
            self._report_errors(failed)

    def _report_errors(self, failed: Sequence[ApiError]) -> None:
        """Report an error once, and retry after RETRY_SECONDS."""
        text = str(failed[0]) if failed else ""
        if text and text != self._last_error:
            self._on_error(f"the API server rejects reports of nodes: {text}")
        self._last_error = text
        if text:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)
                self._dirty = True

    def _due(self) -> Iterator[Callable[[], None]]:
        """The requests that are due: deletions and statuses that differ from what was reported."""
        for key, pod in self._pods.items():
            place, uid = self._running.get(key), pod["metadata"]["uid"]
            is_replaced = place is not None and not same_uid(place.uid, uid)
            if pod["spec"].get("nodeName") not in self._nodes:
                continue
            if _is_terminating(pod):
                if place is None:
                    yield partial(self._delete_pod, pod)
            elif key in self._failed and self._reported_failures.get(uid) != self._failed[key]:
                yield partial(self._report_unready, pod, self._failed[key])
            elif place is not None and not is_replaced and not self._is_reported(pod, place):
                yield partial(self._report_running, pod, place)

    def _is_reported(self, pod: Object, place: PodPlacement) -> bool:
        """Whether the status of a pod that runs is up to date. A pod that has finished never runs again."""
        status = pod.get("status", {})
        known = status.get("phase") == "Running" and status.get("podIP") == place.address
        finished = status.get("phase") in FINISHED
        if pod["metadata"]["uid"] in self._reported_failures and not finished:
            return False
        return known or finished or self._reported_addresses.get(pod["metadata"]["uid"]) == place.address

    def _report_running(self, pod: Object, place: PodPlacement) -> None:
        status = pod_status(pod, address=place.address, host=self._addresses.get(place.node), now=_now())
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        with suppress(MissingError, ConflictError):  # deleted or replaced: a watch event follows
            self._api.request("PATCH", f"{_path(pod)}/status", body=body, content_type=MERGE)
        self._reported_addresses[pod["metadata"]["uid"]] = place.address
        self._reported_failures.pop(pod["metadata"]["uid"], None)

    def _report_unready(self, pod: Object, reason: str) -> None:
        """Report a pod that cannot be started as not ready, with its phase unchanged."""
        uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase")
        status = {"phase": phase or "Pending", "conditions": [unready(_now(), reason)]}
        with suppress(MissingError, ConflictError):
            body = {"metadata": {"uid": uid}, "status": status}
            self._api.request("PATCH", f"{_path(pod)}/status", body=body, content_type=MERGE)
        self._reported_failures[uid] = reason

    def _delete_pod(self, pod: Object) -> None:
        """Delete a terminating pod that has ended."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        with suppress(MissingError, ConflictError):
            self._api.request("DELETE", _path(pod), body=body)
        self._reported_addresses.pop(pod["metadata"]["uid"], None)
        self._reported_failures.pop(pod["metadata"]["uid"], None)


def _error_of(work: Callable[[], None]) -> ApiError | None:
    try:
        work()
    except ApiError as error:
        return error
    return None


def _is_terminating(pod: Object) -> bool:
    return pod["metadata"].get("deletionTimestamp") is not None


def _path(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _now(*, micro: bool = False) -> str:
    """The time as the API writes it (RFC 3339)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
