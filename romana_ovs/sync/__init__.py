"""PURE: what a switch should have, compared with what it has, as a plan."""
