"""The definition of Tenant: its name is its tenant's, for ever, and kubectl shows what it has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from romana_ovs.kube.admission.tenancy import tenant_object_name
from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.api_objects import Object
from tests.support.raw_client import Client, Refused

TENANTS = "/apis/romana.io/v1/tenants"
STATUS: Object = {
    "observedGeneration": 1,
    "pods": 5,
    "ranges": ["10.0.0.0/16", "10.2.0.0/16"],
    "tiers": [
        {"name": "backend", "segment": 3, "ranges": ["10.0.1.0/24"], "pods": 3},
        {"name": "frontend", "segment": 4},
    ],
    "tierNames": ["backend", "frontend"],
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Allocated",
            "message": "every pod has an address",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}


@pytest.fixture
def tenants(admin: Client) -> Iterator[str]:
    """Where Tenants are; those that a test makes begin with `try`, and go."""
    yield TENANTS
    for item in admin.get(TENANTS)["items"]:
        if item["metadata"]["name"].startswith("try"):
            admin.delete(f"{TENANTS}/{item['metadata']['name']}")


def tenant(name: str, true_name: object) -> Object:
    return {"apiVersion": "romana.io/v1", "kind": "Tenant", "metadata": {"name": name}, "spec": {"tenant": true_name}}


def test_an_administrator_may_make_one_beforehand(control_plane: ControlPlane, admin: Client, tenants: str) -> None:
    admin.create(tenants, tenant("try1", "try1"))
    encoded = tenant_object_name("Try_2")
    admin.create(tenants, tenant(encoded, "Try_2"))
    admin.patch(f"{tenants}/try1/status", {"status": STATUS})
    assert admin.get(f"{tenants}/try1")["status"] == STATUS
    shown = control_plane.kubectl("get", "tenants", "try1", encoded, "-o", "wide").splitlines()
    assert shown[0].split() == ["NAME", "TENANT", "RANGES", "TIERS", "PODS", "READY", "MESSAGE", "AGE"]
    assert shown[1].split()[:6] == [
        "try1",
        "try1",
        '["10.0.0.0/16","10.2.0.0/16"]',
        '["backend","frontend"]',
        "5",
        "True",
    ]
    assert shown[2].split()[:2] == [encoded, "Try_2"]


@pytest.mark.parametrize(
    ("name", "true_name", "reason"),
    [
        ("try1", "try2", "metadata.name must be the name of the tenant"),
        ("try1", "", "at least 1 chars"),
        ("try1", "a b", "should match"),
        ("try1", "x" * 64, "may not be more than 63"),
        ("try1", None, "spec.tenant: Required value"),
    ],
)
def test_what_cannot_be_a_tenant_is_refused(
    admin: Client,
    tenants: str,
    name: str,
    true_name: object,
    reason: str,
) -> None:
    with pytest.raises(Refused, match=reason):
        admin.create(tenants, tenant(name, true_name))


@pytest.mark.parametrize("spec", [{"tenant": "Try_3"}, {"tenant": None}, None])
def test_a_tenant_never_becomes_another(admin: Client, tenants: str, spec: Object | None) -> None:
    admin.create(tenants, tenant("try-encoded", "Try_2"))
    with pytest.raises(Refused, match="the tenant is immutable|spec.tenant: Required|spec: Required"):
        admin.patch(f"{tenants}/try-encoded", {"spec": spec})


def test_a_status_comes_by_its_own_way(admin: Client, tenants: str) -> None:
    made = admin.create(tenants, {**tenant("try1", "try1"), "status": STATUS})
    assert "status" not in made
    admin.patch(f"{tenants}/try1/status", {"status": STATUS})
    assert admin.patch(f"{tenants}/try1", {"status": {"pods": 7}})["status"] == STATUS
