"""Emulates a cluster on this machine: nodes, pods, servers, probes, prompt, and a control plane of Kubernetes."""
