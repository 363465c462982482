"""Checks objects against others: which tenants a namespace may hold, and how many policies it may have. Pure."""
