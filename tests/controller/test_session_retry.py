"""How often a session retries a program that its switch refuses."""

from __future__ import annotations

from typing import cast

import eventlet

from romana_ovs import runtime
from romana_ovs.controller.session import DesiredState, Session
from romana_ovs.flag import Flag
from romana_ovs.pipeline.compile import Program
from romana_ovs.switch.channel import Channel
from romana_ovs.sync.session import SessionState
from tests.support.fake_channel import FakeChannel

assert runtime.OFP_VERSION == 6, "Ryu's modules can be imported in its own order alone: runtime comes first"

REFUSALS = 1100
"""More than 1024, by which 2.0 ** REFUSALS is no float."""


def _refuse(session: Session, channel: FakeChannel, refusals: int) -> None:
    """Let the switch refuse so many programs; a new desired state ends each pause."""
    for number in range(refusals):
        session.set_desired(DesiredState(number, 1, Program({}, {}), host=1))
        for _ in range(10):
            eventlet.sleep(0)
            if len(channel.asked) > number and session.state is SessionState.FAILED:
                break


def test_a_session_outlives_any_number_of_refusals() -> None:
    """Its next pause overflowed after 1024 of them, 8.5 hours; that ended the session and closed the connection."""
    channel = FakeChannel(refuses=True)
    session = Session(cast(Channel, channel), Flag())
    thread = eventlet.spawn(session.run)
    _refuse(session, channel, REFUSALS)
    assert (len(channel.asked), session.state, channel.closed) == (REFUSALS, SessionState.FAILED, False)
    channel.refuses = False
    desired = DesiredState(0, 1, Program({}, {}), host=1)
    session.set_desired(desired)
    for _ in range(10):
        eventlet.sleep(0)
    assert session.confirmed is desired and session.problems == ()
    session.on_disconnect()
    thread.wait()
