"""Receives OpenFlow messages, checks them (`message_checks`) and passes them to Ryu or to the channel."""

from __future__ import annotations

import logging
import os
import socket as sockets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from eventlet.green import socket as green_sockets
from ryu.controller import ofp_event
from ryu.controller.controller import Datapath
from ryu.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, HANDSHAKE_DISPATCHER, MAIN_DISPATCHER
from ryu.lib import hub
from ryu.ofproto import ofproto_parser

from romana_ovs.model.errors import SwitchError
from romana_ovs.switch import message_checks, messages
from romana_ovs.switch.meter_wire import METER_DESC
from romana_ovs.switch.wire import FLOW_DESC, HEADER

LOG = logging.getLogger("romana_ovs.switch")

HANDSHAKE_SECONDS = 5.0
"""Deadline of Ryu's handshake; slower connections are closed."""
MAX_READ = 65536


class Receiver(Protocol):
    """Handles the answers that Ryu does not need."""

    def on_message(self, kind: int, xid: int, body: memoryview) -> None:
        """An error, barrier reply, bundle reply or description of flows or meters."""

    def on_packet_in(self, body: memoryview) -> None:
        """A packet to the controller; no flow of ours sends one."""


class _UnixSocket:
    """A unix socket that ignores TCP options: Ryu sets TCP_NODELAY on every socket."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def setsockopt(self, level: int, *rest: Any) -> None:
        if level != sockets.IPPROTO_TCP:
            self._inner.setsockopt(level, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class GuardedDatapath(Datapath):  # type: ignore[misc]  # Ryu has no types
    """One connection. `receiver` is None until the application knows the switch.

    `management`: it was made from here, to the management socket of a bridge.
    """

    receiver: Receiver | None = None
    xid: int

    def __init__(self, socket: Any, address: Any, *, management: bool = False) -> None:
        self.management = management
        local = socket.family == sockets.AF_UNIX
        super().__init__(_UnixSocket(socket) if local else socket, address or "a unix socket")
        self._deadline = hub.spawn_after(HANDSHAKE_SECONDS, self._check_handshake)

    def next_xid(self) -> int:
        """An xid that no other pending message of this connection has."""
        self.xid = (self.xid + 1) & self.ofproto.MAX_XID
        return self.xid

    def abort(self) -> None:
        """Closes the connection at once, in both directions."""
        self.close()
        try:
            self.socket.shutdown(sockets.SHUT_RDWR)
        except OSError:
            LOG.debug("%s was disconnected already", self.address)

    def _check_handshake(self) -> None:
        if self.state not in (MAIN_DISPATCHER, DEAD_DISPATCHER):
            LOG.warning("%s: no OpenFlow handshake within %g s, disconnecting", self.address, HANDSHAKE_SECONDS)
            self.abort()

    def _recv_loop(self) -> None:
        buffer = bytearray()
        try:
            while self.state != DEAD_DISPATCHER:
                try:
                    data = self.socket.recv(MAX_READ)
                except TimeoutError:
                    continue
                if not data:
                    break
                buffer += data
                del buffer[: self._handle_all(buffer)]
        except SwitchError as error:
            LOG.error("%s sent an invalid message, disconnecting: %s", self.address, error)
        except OSError as error:
            LOG.debug("%s: %s", self.address, error)
        finally:
            self._deadline.cancel()
            self.abort()
            self.socket.close()

    def _handle_all(self, buffer: bytearray) -> int:
        """Handles every complete message in `buffer`; returns their length in bytes."""
        data = bytes(buffer)
        view = memoryview(data)
        at = 0
        while len(data) - at >= HEADER.size and self.state != DEAD_DISPATCHER:
            version, kind, length, xid = HEADER.unpack_from(data, at)
            message_checks.check_header(version, kind, length)
            if at + length > len(data):
                break
            self._handle(version, kind, xid, view[at : at + length])
            at += length
        return at

    def _handle(self, version: int, kind: int, xid: int, whole: memoryview) -> None:
        body = whole[HEADER.size :]
        if kind in (messages.ECHO_REQUEST, messages.ECHO_REPLY):
            self._to_ryu(version, kind, xid, whole)
        elif kind == messages.HELLO and self.state == HANDSHAKE_DISPATCHER:
            message_checks.check_hello(body)
            self._to_ryu(version, kind, xid, whole)
        elif kind == messages.FEATURES_REPLY and self.state == CONFIG_DISPATCHER:
            message_checks.check_features(body)
            self._to_ryu(version, kind, xid, whole)
        elif kind == messages.MULTIPART_REPLY:
            self._multipart(version, xid, whole, body)
        elif kind == messages.ERROR:
            message_checks.check_error(body)
            self._to_receiver(kind, xid, body)
        elif kind in (messages.BARRIER_REPLY, messages.BUNDLE_CONTROL):
            self._to_receiver(kind, xid, body)
        elif kind == messages.PACKET_IN and self.receiver is not None:
            self.receiver.on_packet_in(body)
        # Other messages (port status, flow removed, ...) are not needed: OVSDB and reading back have the same data.

    def _multipart(self, version: int, xid: int, whole: memoryview, body: memoryview) -> None:
        kind = message_checks.multipart_type(body)
        if kind == message_checks.PORT_DESC and self.state == CONFIG_DISPATCHER:
            message_checks.check_ports(body)
            self._to_ryu(version, messages.MULTIPART_REPLY, xid, whole)
        elif kind in (FLOW_DESC, METER_DESC):
            self._to_receiver(messages.MULTIPART_REPLY, xid, body)

    def _to_receiver(self, kind: int, xid: int, body: memoryview) -> None:
        if self.receiver is not None:
            self.receiver.on_message(kind, xid, body)
        elif kind == messages.ERROR:
            LOG.warning("%s: error %s", self.address, error_text(body))

    def _to_ryu(self, version: int, kind: int, xid: int, whole: memoryview) -> None:
        message = ofproto_parser.msg(self, version, kind, len(whole), xid, bytearray(whole))
        if message is None:
            raise SwitchError(f"a message of type {kind} that Ryu cannot parse")
        event = ofp_event.ofp_msg_to_ev(message)
        brick = self.ofp_brick
        brick.send_event_to_observers(event, self.state)
        handlers: list[Callable[[Any], None]] = [
            handler for handler in brick.get_handlers(event) if self.state in handler.callers[type(event)].dispatchers
        ]
        for handler in handlers:
            handler(event)


def serve_connection(socket: Any, address: Any) -> None:
    """Serves one accepted connection until it ends; replaces Ryu's `datapath_connection_factory`."""
    GuardedDatapath(socket, address).serve()


def serve_management(path: Path) -> None:
    """Serves a connection to the management socket of a bridge until it ends. Raises SwitchError if there is none."""
    with green_sockets.socket(sockets.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            # Green sockets have the name of the error instead of its text.
            raise SwitchError(f"{path}: {os.strerror(error.errno) if error.errno else error}") from error
        GuardedDatapath(connection, str(path), management=True).serve()


def error_text(body: memoryview) -> str:
    """The names of an OpenFlow error's type and code."""
    from ryu.ofproto import ofproto_v1_5

    kind, code = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
    names = [ofproto_v1_5.ofp_error_type_to_str(kind), ofproto_v1_5.ofp_error_code_to_str(kind, code)]
    return " ".join(str(name) for name in names)
