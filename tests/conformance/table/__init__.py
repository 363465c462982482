"""The table: every case, and what of the lists it is made from stands elsewhere or is out of scope."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance.table import (
    peers,
    pods,
    ports,
    tenants,
    unions,
    upstream_egress,
    upstream_ingress,
    upstream_protocols,
)
from tests.conformance.words import Case

CASES: tuple[Case, ...] = (
    *upstream_ingress.CASES,
    *upstream_egress.CASES,
    *upstream_protocols.CASES,
    *peers.CASES,
    *ports.CASES,
    *unions.CASES,
    *pods.CASES,
    *tenants.CASES,
)

ELSEWHERE: Mapping[str, str] = {
    "A21": "tests/conformance/test_tables.py",
    "A22": "tests/integration/test_packets.py",
}
"""Hazards whose shape is no matrix: where they are tested instead."""

OUT_OF_SCOPE: Mapping[str, str] = {
    "A26": "needs Services",
    "A27": "needs Services",
    "A31": "admin policies are not acted on yet",
}

UPSTREAM_ELSEWHERE: Mapping[str, str] = {
    "support creating NetworkPolicy API operations": "a test of the API server itself, with no traffic",
    "support creating NetworkPolicy API with endport field": "tests/conformance/test_validation.py",
}
