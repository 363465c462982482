"""A set of frames that somebody sends to somebody who must hear nothing: the form in which attacks are declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tests.attacks.craft import End
from tests.attacks.ground import POLICY, TENANT, Duel


def nothing(frame: bytes) -> bool:
    """No frame may arrive."""
    return False


@dataclass(frozen=True, slots=True)
class Aim:
    """The ends of one attack. `wire` is the source MAC that the friend's packets have between nodes."""

    attacker: End
    ally: End
    victim: End
    friend: End
    others: tuple[End, ...]
    """Every pod but the attacker."""
    nodes: tuple[End, ...]
    """The nodes, the attacker's first."""
    wire: str

    def at_ally(self) -> Aim:
        """The same, aimed at the ally instead."""
        return replace(self, victim=self.ally)


@dataclass(frozen=True, slots=True)
class FrameSet:
    """One attack by frames alone, made anew for each pair of ends (`duels`).

    `works`: every one of these frames arrives when it is aimed at the ally, so it is not dropped for being odd.
    `admits`: whether a frame may arrive at the victim (by default none may). `short`: `make test` has it too.
    `to_tables`: the kernel would drop them before the switch, by their ethertypes; that is taken off meanwhile.
    """

    name: str
    frames: Callable[[Aim], Iterable[bytes]]
    works: bool = False
    admits: Callable[[bytes], bool] = nothing
    duels: tuple[Duel, ...] = TENANT + POLICY
    short: bool = False
    to_tables: bool = False
