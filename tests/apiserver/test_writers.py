"""What we write to a real API server: leadership between processes, statuses, Events; by the registry's own rights."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from romana_ovs.kube.admission.tenancy import tenant_object_name
from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.desired import (
    Condition,
    ConditionStatus,
    JoinElection,
    Leadership,
    ObjectWarning,
    PolicyStatus,
    ReplaceStatuses,
    ReplaceWarnings,
    TenantStatus,
    TierStatus,
    UpdateStatuses,
)
from romana_ovs.kube.api.election import Timing
from romana_ovs.kube.api.messages import Health, LogLine, Start
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.api.status_queue import WRITES_A_SECOND, WRITES_AT_ONCE
from romana_ovs.kube.decode.decoder import decode_served
from romana_ovs.kube.decode.objects import ObjectId, Version
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.support.kubernetes_process import KubeProcess
from tests.support.raw_client import Client
from tests.support.raw_client import Refused as Denied
from tests.support.waiting import eventually

SECONDS = 30.0
SHORT = Timing(lease_duration=3, renew_deadline=2, retry_period=0.3, request_timeout=1)
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
ROMANA = "/apis/romana.io/v1"
SPEC: dict[str, Any] = {"podSelector": {}, "allowIncoming": []}


@pytest.fixture(scope="module")
def registry(control_plane: ControlPlane) -> Path:
    """The kubeconfig of the account that etc/kubernetes gives the registry."""
    return control_plane.kubeconfig_for_service_account("kube-system", "romana-registry")


@pytest.fixture
def lease(admin: Client) -> Iterator[str]:
    """The one lease that the registry's account may write; nobody's before and after."""
    yield "romana-ovs"
    with contextlib.suppress(Denied):
        admin.delete(f"{LEASES}/romana-ovs")


class Writer(KubeProcess):
    """The Kubernetes process as one of several writers."""

    def __init__(self, me: str, kubeconfig: Path) -> None:
        super().__init__()
        self.me = me
        self.send(Start(ApiSource(str(kubeconfig)), Settings(), ()), JoinElection(me, timing=SHORT))

    def led(self) -> Leadership:
        """The first time that it leads."""
        return cast(Leadership, self.until(lambda said: isinstance(said, Leadership) and said.leads))

    def resign(self) -> None:
        """Have it end in order, as with its controller: it gives the lease back."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def writer(registry: Path, lease: str) -> Iterator[Callable[..., Writer]]:
    """Starts writers."""
    with contextlib.ExitStack() as stack:

        def start(me: str = "a", kubeconfig: Path = registry) -> Writer:
            made = Writer(me, kubeconfig)
            stack.callback(made.close)
            return made

        yield start


class Policies:
    """The policies of one namespace."""

    def __init__(self, admin: Client, namespace: str) -> None:
        self.admin, self.namespace = admin, namespace
        self.path = f"{ROMANA}/namespaces/{namespace}/networkpolicies"

    def make(self, name: str = "web") -> Version:
        return self._version(self.admin.create(self.path, {
            "apiVersion": "romana.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": SPEC,
        }))  # fmt: skip

    def edit(self, name: str = "web") -> Version:
        """Another spec, so another generation."""
        spec = {"podSelector": {"matchLabels": {"edited": f"at-{time.monotonic_ns()}"}}}
        return self._version(self.admin.patch(f"{self.path}/{name}", {"spec": spec}))

    def get(self, name: str = "web") -> dict[str, Any]:
        return self.admin.get(f"{self.path}/{name}")

    def condition(self, name: str = "web") -> dict[str, Any]:
        """Its condition Programmed, empty while there is none."""
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "Programmed"), {})

    def id(self, name: str = "web") -> ObjectId:
        return ObjectId("RomanaNetworkPolicy", self.namespace, name)

    def _version(self, value: dict[str, Any]) -> Version:
        return Version(value["metadata"]["uid"], value["metadata"]["generation"])


@pytest.fixture
def policies(admin: Client, namespace: str) -> Policies:
    return Policies(admin, namespace)


def status(version: Version, *, programmed: bool = True, message: str = "") -> PolicyStatus:
    truth = ConditionStatus.TRUE if programmed else ConditionStatus.FALSE
    return PolicyStatus(version, (Condition("Programmed", truth, "Programmed" if programmed else "Pending", message),))


# Leadership.


@pytest.mark.alone
def test_one_of_two_leads_and_hands_over_in_order(writer: Callable[..., Writer], admin: Client) -> None:
    first = writer("a")
    assert first.led() == Leadership(True, "a")
    second = writer("b")
    second.until(lambda said: isinstance(said, Leadership) and said.holder == "a")
    began = time.monotonic()
    first.resign()
    first.until(lambda said: isinstance(said, Leadership) and said.ended)
    assert second.led() == Leadership(True, "b")
    assert time.monotonic() - began < SHORT.lease_duration, "the lease was given back, not run out"
    spec = admin.get(f"{LEASES}/romana-ovs")["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"], spec["leaseDurationSeconds"]) == ("b", 1, 3)


def test_the_end_of_the_controller_gives_the_lease_back(writer: Callable[..., Writer], admin: Client) -> None:
    first = writer("a")
    first.led()
    assert first.process.stdin is not None and first.process.stdout is not None
    first.process.stdout.close()
    first.process.stdin.close()
    assert first.process.wait(SECONDS) == 0
    assert not admin.get(f"{LEASES}/romana-ovs")["spec"].get("holderIdentity")


def test_a_leader_stopped_beyond_its_lease_writes_nothing(writer: Callable[..., Writer], policies: Policies) -> None:
    """docs/hazards.md C12: SIGSTOP."""
    version = policies.make()
    first = writer("a")
    first.led()
    first.send(ReplaceStatuses({policies.id(): status(version, message="by a")}))
    eventually(lambda: policies.condition().get("message") == "by a", "a writes", SECONDS)
    os.kill(first.process.pid, signal.SIGSTOP)
    second = writer("b")
    second.send(ReplaceStatuses({policies.id(): status(version, message="by b")}))
    assert second.led().leads
    eventually(lambda: policies.condition().get("message") == "by b", "b writes", SECONDS)
    # What it is to write first thing when it goes on:
    first.send(UpdateStatuses({policies.id(): status(version, message="by a, too late")}))
    os.kill(first.process.pid, signal.SIGCONT)
    gone = first.until(lambda said: isinstance(said, Leadership) and not said.leads and said.holder == "b")
    assert not gone.ended
    # Two looks whether it leads later (statuses.IDLE_SECONDS), nothing of it has come.
    settled = time.monotonic() + 2.5
    while time.monotonic() < settled:
        assert policies.condition()["message"] == "by b"
        time.sleep(0.1)


def test_a_delayed_write_is_refused_by_its_resource_version(registry: Path, policies: Policies) -> None:
    """The status as read before the other leader wrote: what no check of a clock can prevent. docs/hazards.md C12."""
    policies.make()
    old = policies.get()["metadata"]
    api = Api(ApiSource(str(registry)))
    path, body = f"{policies.path}/web/status", {"status": {"observedGeneration": 1}}
    precondition = {"uid": old["uid"], "resourceVersion": old["resourceVersion"]}
    kind = "application/merge-patch+json"
    api.request("PATCH", path, body=body, content_type=kind)
    with pytest.raises(Exception, match="409"):
        api.request("PATCH", path, body={"metadata": precondition, "status": {}}, content_type=kind)


def test_a_lease_deleted_by_hand_comes_back_with_the_same_leader(writer: Callable[..., Writer], admin: Client) -> None:
    first = writer("a")
    first.led()
    second = writer("b")
    second.until(lambda said: isinstance(said, Leadership) and said.holder == "a")
    deleted = admin.delete(f"{LEASES}/romana-ovs")["details"]["uid"]

    def anew() -> dict[str, Any]:
        with contextlib.suppress(Denied):
            found = admin.get(f"{LEASES}/romana-ovs")
            return found if found["metadata"]["uid"] != deleted else {}
        return {}

    assert eventually(anew, "a leads again", SECONDS)["spec"]["holderIdentity"] == "a"


def test_a_stalled_api_server_costs_leadership_but_no_writes(
    control_plane: ControlPlane,
) -> None:
    """One of our own, as everything stops with it."""
    with ControlPlane() as plane, Client.of_kubeconfig(plane.kubeconfig) as admin:
        plane.apply(manifests_folder())
        policies = Policies(admin, "default")
        version = policies.make()
        child = Writer("a", plane.kubeconfig_for_service_account("kube-system", "romana-registry"))
        with contextlib.closing(child):
            child.led()
            server = plane.daemon("kube-apiserver").pid
            assert server is not None
            os.kill(server, signal.SIGSTOP)
            try:
                child.send(ReplaceStatuses({policies.id(): status(version, message="meanwhile")}))
                child.until(lambda said: isinstance(said, Leadership) and not said.leads and said.holder == "a")
            finally:
                os.kill(server, signal.SIGCONT)
            child.until(lambda said: isinstance(said, Leadership) and said.leads, anew=True)
            eventually(lambda: policies.condition().get("message") == "meanwhile", "the status is written", SECONDS)


# Statuses.


def test_a_status_is_written_with_the_rights_of_the_registry(
    writer: Callable[..., Writer], policies: Policies, control_plane: ControlPlane
) -> None:
    version = policies.make()
    child = writer()
    child.send(ReplaceStatuses({policies.id(): status(version, programmed=False)}))
    pending = eventually(policies.condition, "there is a condition", SECONDS)
    assert (pending["status"], pending["observedGeneration"]) == ("False", 1)
    time.sleep(max(0.0, 1.1 - time.time() % 1))  # Times are in whole seconds: the next one is another.
    child.send(UpdateStatuses({policies.id(): status(version, programmed=True)}))
    done = eventually(
        lambda: (found := policies.condition())["status"] == "True" and found, "it is programmed", SECONDS
    )
    assert datetime.fromisoformat(done["lastTransitionTime"]) > datetime.fromisoformat(pending["lastTransitionTime"])
    edited = policies.edit()
    child.send(UpdateStatuses({policies.id(): status(edited, message="anew")}))
    anew = eventually(
        lambda: (found := policies.condition())["observedGeneration"] == 2 and found, "the edit is observed", SECONDS
    )
    assert anew["lastTransitionTime"] == done["lastTransitionTime"], "it was as true before"
    control_plane.kubectl(
        "wait", "--for=condition=Programmed", "networkpolicies.romana.io/web", "-n", policies.namespace, "--timeout=5s"
    )
    shown = control_plane.kubectl("get", "networkpolicies.romana.io", "web", "-n", policies.namespace).splitlines()
    assert dict(zip(shown[0].split(), shown[1].split(), strict=False))["PROGRAMMED"] == "True"


def test_our_own_write_is_no_change_of_the_object(writer: Callable[..., Writer], policies: Policies) -> None:
    """docs/hazards.md C14: it causes no computation."""
    version = policies.make()
    before = policies.get()
    child = writer()
    child.send(ReplaceStatuses({policies.id(): status(version)}))
    eventually(policies.condition, "there is a condition", SECONDS)
    after = policies.get()
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    decoded = [decode_served(value, "NetworkPolicy", "romana.io/v1", Settings()) for value in (before, after)]
    assert decoded[0].value is not None and decoded[0] == decoded[1]


def test_a_thousand_changes_are_few_writes_and_the_last_stands(
    writer: Callable[..., Writer], policies: Policies, control_plane: ControlPlane
) -> None:
    version = policies.make()
    begin = policies.get()["metadata"]["resourceVersion"]
    child = writer()
    child.led()
    began = time.monotonic()
    for number in range(1000):
        child.send(UpdateStatuses({policies.id(): status(version, programmed=bool(number % 2), message=str(number))}))
    api = Api(ApiSource(str(control_plane.kubeconfig)))
    query = {"watch": 1, "resourceVersion": begin, "timeoutSeconds": int(SECONDS)}
    messages = []
    for line in api.stream(policies.path, query=query, deadline=SECONDS):
        messages += [one["message"] for one in json.loads(line)["object"].get("status", {}).get("conditions", [])]
        if messages[-1] == "999":
            break
    assert messages[-1] == "999"
    assert len(messages) <= WRITES_AT_ONCE + WRITES_A_SECOND * (time.monotonic() - began)
    assert [int(one) for one in messages] == sorted({int(one) for one in messages}), "newer ones only"


def test_who_changes_the_object_meanwhile_loses_nothing(writer: Callable[..., Writer], policies: Policies) -> None:
    """A status made from a version that labels were written over: 409, read again, written. docs/hazards.md C14."""
    version = policies.make()
    child = writer()
    child.send(ReplaceStatuses({policies.id(): status(version)}))
    eventually(policies.condition, "there is a condition", SECONDS)
    for number in range(10):
        policies.admin.patch(f"{policies.path}/web", {"metadata": {"labels": {"n": str(number)}}})
        child.send(UpdateStatuses({policies.id(): status(version, message=str(number))}))
        eventually(partial(_says, policies, str(number)), "the message is the newest", SECONDS)
    assert policies.get()["metadata"]["labels"] == {"n": "9"}


@pytest.mark.parametrize("form", ["{}", "T.{}_x"])
def test_a_tenant_is_made_and_described(
    form: str, writer: Callable[..., Writer], admin: Client, control_plane: ControlPlane, namespace: str
) -> None:
    tenant = form.format(namespace)
    name = tenant_object_name(tenant)
    key = ObjectId("Tenant", "", name)
    tiers = (TierStatus("web", 4096, ("10.1.0.0/20",), 2), TierStatus("default", 4097, ("10.1.16.0/20",), 1))
    ready = Condition("Ready", ConditionStatus.TRUE, "Allocated", "All of its pods have addresses.")
    child = writer()
    child.send(ReplaceStatuses({key: TenantStatus(tenant, (ready,), ("10.1.0.0/18",), tiers, 3)}))
    found = eventually(lambda: _tenant(admin, name).get("status"), "the tenant has a status", SECONDS)
    assert (found["ranges"], found["pods"], found["tierNames"]) == (["10.1.0.0/18"], 3, ["web", "default"])
    assert found["tiers"][0] == {"name": "web", "segment": 4096, "ranges": ["10.1.0.0/20"], "pods": 2}
    assert _tenant(admin, name)["spec"] == {"tenant": tenant}
    shown = control_plane.kubectl("get", "tenants", name)
    assert "10.1.0.0/18" in shown and "True" in shown
    admin.delete(f"{ROMANA}/tenants/{name}")


def _tenant(admin: Client, name: str) -> dict[str, Any]:
    with contextlib.suppress(Denied):
        return admin.get(f"{ROMANA}/tenants/{name}")
    return {}


# Events.


def test_a_refused_object_has_one_event_that_kubectl_shows(
    writer: Callable[..., Writer], policies: Policies, control_plane: ControlPlane, admin: Client
) -> None:
    """docs/hazards.md E11: escape sequences come out as text."""
    version = policies.make()
    note = 'spec.x: must be a number, not "\x1b[31m\n"}'
    refused = ReplaceWarnings({policies.id(): ObjectWarning(version, "InvalidEdit", note)})
    child = writer()
    child.send(refused, refused)
    events = f"/apis/events.k8s.io/v1/namespaces/{policies.namespace}/events"
    (event,) = eventually(lambda: admin.get(events)["items"], "there is an Event", SECONDS)
    assert event["note"] == 'spec.x: must be a number, not "\\u001b[31m\\n"}'
    described = control_plane.kubectl("describe", "networkpolicies.romana.io", "web", "-n", policies.namespace)
    assert "InvalidEdit" in described and "must be a number" in described
    listed = control_plane.kubectl("get", "events", "-n", policies.namespace)
    assert "networkpolicy/web" in listed and "Warning" in listed
    child.resign()
    child.until(lambda said: isinstance(said, Leadership) and said.ended)
    # Another process, which knows nothing of that: it goes on with the same Event.
    another = writer("b")
    another.send(refused)
    (event,) = eventually(
        lambda: [one for one in admin.get(events)["items"] if one.get("series")], "the Event is renewed", SECONDS
    )
    assert event["series"]["count"] == 2


def test_events_of_cluster_scoped_objects_go_to_default(
    writer: Callable[..., Writer], admin: Client, namespace: str, control_plane: ControlPlane
) -> None:
    uid = admin.get(f"/api/v1/namespaces/{namespace}")["metadata"]["uid"]
    child = writer()
    child.send(
        ReplaceWarnings({ObjectId("Namespace", "", namespace): ObjectWarning(Version(uid), "Questionable", "odd.")})
    )
    events = eventually(
        lambda: _lines(control_plane.kubectl("get", "events", "-n", "default"), namespace),
        "kubectl shows Events",
        SECONDS,
    )
    assert "Questionable" in events and "odd." in events


def _lines(text: str, word: str) -> str:
    return "\n".join(line for line in text.splitlines() if word in line)


# Without rights.


def test_who_may_not_write_says_so_once_and_tries_again_calmly(
    writer: Callable[..., Writer], admin: Client, control_plane: ControlPlane, policies: Policies
) -> None:
    """It may hold the lease and read; statuses and Events are denied, until somebody grants them."""
    version, user = policies.make(), f"half-{policies.namespace}"
    _grant(admin, user, [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
        {"apiGroups": ["romana.io"], "resources": ["networkpolicies", "tenants"], "verbs": ["get", "list"]},
    ])  # fmt: skip
    child = writer("half", control_plane.kubeconfig_for(user, ["system:masters-not"]))
    child.led()
    child.send(
        ReplaceStatuses({policies.id(): status(version)}),
        ReplaceWarnings({policies.id(): ObjectWarning(version, "Invalid", "bad.")}),
    )
    for subject in ("status of networkpolicies.romana.io", "events"):
        health = child.until(partial(_in_trouble, subject))
        assert "403" in health.error and user in health.error
    (line,) = [said for said in child.said if isinstance(said, LogLine) and said.text.startswith("events: ")]
    assert "cannot create resource" in line.text and "it is tried again" in line.text
    _grant(admin, f"{user}-more", [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ], user=user)  # fmt: skip
    child.until(lambda said: isinstance(said, Health) and said.subject == "events" and not said.error)
    assert len([said for said in child.said if isinstance(said, LogLine) and said.text.startswith("events: ")]) == 2
    for name in (user, f"{user}-more"):
        for kind in ("clusterroles", "clusterrolebindings"):
            admin.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{name}")


def _grant(admin: Client, name: str, rules: list[dict[str, Any]], *, user: str = "") -> None:
    group = "/apis/rbac.authorization.k8s.io/v1"
    admin.create(f"{group}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    admin.create(f"{group}/clusterrolebindings", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user or name}],
    })  # fmt: skip


def _says(policies: Any, text: str) -> bool:
    return bool(policies.condition()["message"] == text)


def _in_trouble(subject: str, message: object) -> bool:
    return isinstance(message, Health) and message.subject == subject and bool(message.error)
