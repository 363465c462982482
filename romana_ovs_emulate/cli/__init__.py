"""Implements the subcommands of `romana-ovs` that emulate a cluster, one module each."""
