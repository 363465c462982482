"""Judges objects by others: whether a namespace may hold a tenant's pods, and how many policies it may have."""
