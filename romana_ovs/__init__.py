"""Tenants, tiers and network policies of Kubernetes as OpenFlow tables of Open vSwitch."""

__version__ = "0.1.0"
