"""Manifest folders for tests of commands: small ones by hand, crowds by number."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.api_objects import Object, node, pod, policy


def policy_to(key: str, subject: dict[str, str], peer: dict[str, str], *ports: int) -> Object:
    """A NetworkPolicy that lets pods of label `peer` reach those of label `subject` on TCP `ports`."""
    rule = {"from": [{"podSelector": {"matchLabels": peer}}], "ports": [{"port": port} for port in ports]}
    return policy(key, {"podSelector": {"matchLabels": subject}, "ingress": [rule]})


def manifest(folder: Path, *objects: Object, settings: str = "") -> Path:
    """The folder, with one file of these objects and, when given, a romana.conf."""
    folder.mkdir(exist_ok=True)
    (folder / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    if settings:
        (folder / "romana.conf").write_text(f"[romana]\n{settings}\n")
    return folder


def crowd(folder: Path, pods: int) -> Path:
    """`pods` pods, 50 on each node, of 40 in a tenant, 4 tiers each; tier i+1 accepts TCP/80 from tier i."""
    tenants = max(5, pods // 40)
    items = [node(f"node{number:04}") for number in range(max(1, pods // 50))]
    items += [
        pod(f"t{number % tenants}/p{number}", ports="80/tcp", tier=f"tier{number // tenants % 4}")
        for number in range(pods)
    ]
    items += [
        policy_to(f"t{tenant}/p{tier}", {"tier": f"tier{tier + 1}"}, {"tier": f"tier{tier}"}, 80)
        for tenant in range(tenants)
        for tier in range(3)
    ]
    return manifest(folder, *items, settings="segment_bits = 11\nhost_bits = 8\nendpoint_bits = 5")
