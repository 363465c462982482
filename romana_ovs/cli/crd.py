"""Reads the CustomResourceDefinition that replaces the demonstration's ThirdPartyResource."""

from __future__ import annotations

from typing import Any

import yaml

from romana_ovs.data_files import data_file


def policy_definition() -> dict[str, Any]:
    """The CustomResourceDefinition of `networkpolicies.romana.io`. Raises SetupError when the installation lacks it."""
    definition: dict[str, Any] = yaml.safe_load(data_file("kubernetes/crd-networkpolicies.yaml").read_text())
    return definition
