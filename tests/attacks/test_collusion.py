"""Two pods of two tenants, both with raw sockets, who want to talk: neither hears the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attacks import craft
from tests.attacks.craft import End
from tests.attacks.ground import COLLUSION, Duel
from tests.attacks.scene import Scene, is_of
from tests.attacks.sets.errors import errors
from tests.support.frames import ACK, PSH, SYN

pytestmark = pytest.mark.root
ROUNDS = 3
Frames = list[bytes]


def _udp(a: End, b: End) -> tuple[Frames, Frames]:
    return [craft.udp(a, b, (7100, 7200))], [craft.udp(b, a, (7200, 7100))]


def _tcp(a: End, b: End) -> tuple[Frames, Frames]:
    """Both open at once, and go on as if each had heard the other (RFC 9293, 3.5)."""

    def half(one: End, two: End, ports: tuple[int, int]) -> Frames:
        return [
            craft.tcp(one, two, ports, SYN, seq=1000),
            craft.tcp(one, two, ports, SYN | ACK, seq=1000, ack=1001),
            craft.tcp(one, two, ports, PSH | ACK, seq=1001, ack=1001, data=b"attack"),
        ]

    return half(a, b, (7101, 7201)), half(b, a, (7201, 7101))


def _sctp(a: End, b: End) -> tuple[Frames, Frames]:
    kinds = (1, 2, 10, 11, 0)
    return [craft.sctp(a, b, (7102, 7202), kind) for kind in kinds], [
        craft.sctp(b, a, (7202, 7102), kind) for kind in kinds
    ]


def _echo(a: End, b: End) -> tuple[Frames, Frames]:
    return [craft.icmp(a, b, 8), craft.icmp(a, b, 0)], [craft.icmp(b, a, 0), craft.icmp(b, a, 8)]


def _errors_about(make: Callable[[End, End], tuple[Frames, Frames]]) -> Callable[[End, End], tuple[Frames, Frames]]:
    """Each first sends its refused packets; then errors about the other's, which it knows although it heard none."""

    def both(a: End, b: End) -> tuple[Frames, Frames]:
        one, two = make(a, b)
        return (
            [*one, *(error for about in two for error in errors(a, b, about))],
            [*two, *(error for about in one for error in errors(b, a, about))],
        )

    return both


WAYS = {
    "UDP": _udp,
    "TCP, both open": _tcp,
    "SCTP": _sctp,
    "echo": _echo,
    "ICMP errors about UDP": _errors_about(_udp),
    "ICMP errors about TCP": _errors_about(_tcp),
    "ICMP errors about SCTP": _errors_about(_sctp),
    "ICMP errors about echo": _errors_about(_echo),
}


@pytest.mark.attack("collusion")
@pytest.mark.parametrize("duel", COLLUSION, ids=lambda duel: duel.name)
@pytest.mark.parametrize("way", WAYS)
def test_neither_hears_the_other(scene: Scene, way: str, duel: Duel) -> None:
    a, b = scene.end(duel.attacker), scene.end(duel.victim)
    back = Duel("", duel.victim, "blue/pal1", duel.attacker, "red/mate2")
    for _ in range(ROUNDS):
        there, thence = WAYS[way](a, b)
        # Side by side: the first packets of both are refused before either goes on.
        half = len(there) // 2 or 1
        scene.forget()
        scene.through(duel.attacker, duel.ally, there[:half])
        scene.through(back.attacker, back.ally, thence)
        scene.through(duel.attacker, duel.ally, there)
        scene.reach(duel.friend, duel.victim)
        scene.reach(back.friend, back.victim)
        scene.hears_nothing_of(duel.victim, a)
        scene.hears_nothing_of(duel.attacker, b)


@pytest.mark.parametrize("victim", ["blue/v1", "blue/v2"])
def test_an_error_about_a_connection_that_is_allowed_arrives(scene: Scene, victim: str) -> None:
    """The control: such errors are right in themselves, and their connection's ends do hear them."""
    a, b = scene.end("blue/pal1"), scene.end(victim)
    for about in (craft.udp(a, b, (9000, 9000)), craft.tcp(a, b, (40100, 9000), SYN)):
        scene.through("blue/pal1", victim, [about])
        scene.forget()
        made = [craft.error(b, a, kind, code, about) for kind, code in ((3, 1), (3, 4), (11, 0))]
        scene.through(victim, "blue/foe", made)
        arrived = [frame for frame in scene.heard("blue/pal1") if is_of(frame, b) and frame[23] == craft.ICMP]
        assert len(arrived) == len(made)
