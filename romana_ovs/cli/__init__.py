"""Implements the command `romana-ovs`, one module for each subcommand."""
