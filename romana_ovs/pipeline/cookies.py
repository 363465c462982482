"""Computes cookies: `magic (16 bits) | feature (8) | hash of the origin (40)`.

The magic (never all ones) marks the flows of this controller. The hash identifies the policy and rule: equal origins
have equal cookies, after a restart too.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b

from romana_ovs.policy.view import Origin

MAGIC = 0x524F
MAGIC_SHIFT = 48
OURS = MAGIC << MAGIC_SHIFT
OURS_MASK = 0xFFFF << MAGIC_SHIFT
FEATURE_SHIFT = 40


class Feature(IntEnum):
    """What a flow is for."""

    SPOOF_GUARD = 1
    ARP = 2
    FORWARDING = 3
    CONNTRACK = 4
    ISOLATION = 5
    POLICY = 6
    DELIVERY = 7


def cookie(feature: Feature, origin: Origin) -> int:
    """The 64-bit cookie of a flow of `feature` and `origin`."""
    digest = blake2b(str(origin).encode(), digest_size=5).digest()
    return OURS | feature << FEATURE_SHIFT | int.from_bytes(digest, "big")
