"""Encodes identities, 32-bit numbers by which policies know pods (docs/dataplane.md, "Identity").

Layout: `segment (16 bits) | class (16 bits)`. Classes count from 1, so an identity is never 0 and a
non-zero conntrack mark always means "accepted". Segment 0 holds the nodes' own addresses, segment 0xffff is
reserved for addresses of no pod.
"""

from __future__ import annotations

from typing import NamedTuple

CLASS_WIDTH = 16
ALL_BITS = 0xFFFFFFFF
CLASS_MASK = (1 << CLASS_WIDTH) - 1

RESERVED_SEGMENT = 0xFFFF
OUTSIDE = 0xFFFFFFFF
"""The identity of an address that is neither a pod of the cluster nor a known node."""
UNKNOWN_CLASS = 0
"""The class of a pod whose combination of matches has no number yet: only segment-wide rules apply to it."""


class IdentityMatch(NamedTuple):
    """All identities `i` with `i & mask == value`."""

    value: int
    mask: int = ALL_BITS

    def covers(self, identity: int) -> bool:
        """Whether `identity` is among them."""
        return identity & self.mask == self.value


NOT_A_POD = IdentityMatch(RESERVED_SEGMENT << CLASS_WIDTH, RESERVED_SEGMENT << CLASS_WIDTH)
"""Every reserved identity: nodes and outside."""


def identity(segment: int, number: int) -> int:
    """The identity of class `number` in `segment`."""
    return segment << CLASS_WIDTH | number


def segment_of(number: int) -> int:
    """The segment part of an identity."""
    return number >> CLASS_WIDTH


def node_identity(host: int) -> int:
    """The reserved identity of the node with this host number."""
    return RESERVED_SEGMENT << CLASS_WIDTH | host


def whole_segments(base: int, size: int) -> IdentityMatch:
    """All identities of the aligned power-of-two block of `size` segments from `base`."""
    return IdentityMatch(base << CLASS_WIDTH, ALL_BITS & ~((size << CLASS_WIDTH) - 1))
