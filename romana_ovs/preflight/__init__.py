"""Checks whether a host and its Open vSwitch meet the requirements of a node (kubeadm: preflight checks)."""
