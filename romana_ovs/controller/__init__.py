"""WIRING: the parts of the running controller that do I/O or keep time."""
