"""Computes the difference between the desired and the actual flows and meters of a switch. Pure."""
