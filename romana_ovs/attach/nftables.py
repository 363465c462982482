"""Applies the table of a node with `nft`, and finds out whether somebody has changed it. Source: nft(8)."""

from __future__ import annotations

import socket
import subprocess

from romana_ovs.attach import errors
from romana_ovs.attach.errors import CniError
from romana_ovs.attach.host_rules import FAMILY, TABLE, HostRules, render, rule_count

NFT_SECONDS = 10.0
_NETLINK_NETFILTER, _NFNLGRP_NFTABLES = 12, 7
"""The protocol and the multicast group of changes of nftables (linux/netlink.h, linux/netfilter/nfnetlink.h)."""


class NftTable:
    """The table of this node, which it replaces when it is not as applied."""

    def __init__(self) -> None:
        self._applied = ""
        self._listed = ""
        """What `nft` lists after it was applied: it writes rules in a form of its own."""

    def ensure(self, rules: HostRules) -> bool:
        """Apply the rules unless the kernel has them; returns whether it had not. Raises CniError."""
        text = render(rules)
        if text == self._applied and _listed() == self._listed:
            return False
        _nft("-f", "-", stdin=text)
        listed = _listed()
        # Otherwise somebody has changed it meanwhile: the next comparison applies it again.
        if rule_count(listed) == rule_count(text):
            self._applied, self._listed = text, listed
        return True


def events() -> socket.socket:
    """A socket that gets a message for each change of nftables. Raises OSError."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    made.bind((0, 1 << _NFNLGRP_NFTABLES - 1))
    return made


def concerns_table(messages: bytes) -> bool:
    """Whether a packet of netlink messages may be about the table."""
    return TABLE.encode() + b"\0" in messages


def _listed() -> str:
    """The table as `nft` lists it, without counters and elements of sets; empty when there is none. Raises CniError."""
    done = _run(["nft", "-s", "-t", "list", "table", FAMILY, TABLE])
    if done.returncode and "No such file or directory" not in done.stderr:
        raise _failed(done)
    return done.stdout if not done.returncode else ""


def _nft(*words: str, stdin: str = "") -> None:
    done = _run(["nft", *words], stdin)
    if done.returncode:
        raise _failed(done)


def _run(argv: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=NFT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no answer within {NFT_SECONDS:.0f} s"
        raise CniError(errors.TRY_AGAIN_LATER, f"nft cannot be run: {reason}") from error


def _failed(done: subprocess.CompletedProcess[str]) -> CniError:
    lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
    return CniError(errors.TRY_AGAIN_LATER, f"nft: {lines[0]}")
