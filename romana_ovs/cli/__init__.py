"""The `romana-ovs` command, one module for each subcommand."""
