"""Allocates segment indexes, host numbers and pod addresses under the address plan. Pure."""
