"""An emulated cluster on this machine: nodes, pods, servers, probes, prompt."""
