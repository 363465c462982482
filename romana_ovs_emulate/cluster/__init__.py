"""Runs a Kubernetes cluster of real nodes on this machine: kubelet, containerd, kube-proxy and Open vSwitch on each."""
