"""PURE: the bit plan, ranges, and who gets which number and address."""
