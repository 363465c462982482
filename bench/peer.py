"""Runs a server or client inside a pod: `python -m bench.peer serve|connect|open|sweep|send|answer|flood ...`.

Prints one line of JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time

LINGER_NONE = struct.pack("ii", 1, 0)
"""Closing resets, so that no port waits for a minute."""
CHUNK = bytes(1 << 18)
DATAGRAM = bytes(64)
BURST = 64
ANSWER_SECONDS = 5.0
SWEEP_SECONDS = 0.5


def serve(address: str, port: int) -> None:
    """Never returns: answers one byte to a connection's first byte, and swallows what comes then."""
    listener = socket.create_server((address, port), backlog=1024)
    listener.setblocking(False)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    greeted: set[int] = set()
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                waiting.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]
            try:
                data = connection.recv(1 << 18)
                if data and connection.fileno() not in greeted:
                    greeted.add(connection.fileno())
                    connection.sendall(b"x")
            except OSError:
                data = b""
            if not data:
                greeted.discard(connection.fileno())
                waiting.unregister(connection)
                connection.close()


def _connected(source: tuple[str, int] | None, target: tuple[str, int]) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(ANSWER_SECONDS)
    if source is not None:
        made.bind(source)
    made.connect(target)
    made.sendall(b"x")
    if made.recv(1) != b"x":
        raise OSError("no answer")
    return made


def connect(target: tuple[str, int], seconds: float) -> dict[str, float]:
    """New connections per second, one after the other, each with a byte there and one back."""
    made, end = 0, time.perf_counter() + seconds
    start = time.perf_counter()
    while time.perf_counter() < end:
        _connected(None, target).close()
        made += 1
    return {"rate": made / (time.perf_counter() - start)}


def open_many(source: str, targets: list[tuple[str, int]], first_port: int, ports: int) -> dict[str, int]:
    """Connections from `ports` source ports to each of `targets`, all with an answer."""
    for target in targets:
        for port in range(first_port, first_port + ports):
            _connected((source, port), target).close()
    return {"opened": ports * len(targets)}


def sweep(target: str, first_port: int, ports: int) -> dict[str, int]:
    """Connections that nobody should answer: to `ports` ports of `target`; how many were answered or refused."""
    answered = 0
    waiting = selectors.DefaultSelector()
    for port in range(first_port, first_port + ports):
        made = socket.socket()
        made.setblocking(False)
        made.connect_ex((target, port))
        waiting.register(made, selectors.EVENT_WRITE)
    end = time.monotonic() + SWEEP_SECONDS
    while (left := end - time.monotonic()) > 0:
        for key, _ in waiting.select(left):
            answered += 1
            waiting.unregister(key.fileobj)
    return {"tried": ports, "answered": answered}


def send(target: tuple[str, int], seconds: float) -> dict[str, float]:
    """Bits per second of one TCP stream."""
    made = _connected(None, target)
    sent, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        made.sendall(CHUNK)
        sent += len(CHUNK)
    return {"rate": sent * 8 / (time.perf_counter() - start)}


def answer(address: str, port: int) -> None:
    """Never returns: answers one datagram, and reads no other."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((address, port))
    print("ready", flush=True)
    data, sender = receiver.recvfrom(len(DATAGRAM))
    receiver.sendto(data, sender)
    while True:
        time.sleep(ANSWER_SECONDS)


def flood(target: tuple[str, int], seconds: float) -> dict[str, float]:
    """Datagrams of 64 bytes of payload as fast as possible, once one was answered; those sent, and the seconds."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.settimeout(ANSWER_SECONDS)
    sender.connect(target)
    sender.send(DATAGRAM)
    sender.recv(len(DATAGRAM))
    sent, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(BURST):
            sender.send(DATAGRAM)
        sent += BURST
    return {"sent": sent, "seconds": time.perf_counter() - start}


def main(words: list[str]) -> None:
    """Do what the words say."""
    if words[0] == "serve":
        serve(words[1], int(words[2]))
    elif words[0] == "connect":
        print(json.dumps(connect((words[1], int(words[2])), float(words[3]))))
    elif words[0] == "send":
        print(json.dumps(send((words[1], int(words[2])), float(words[3]))))
    elif words[0] == "answer":
        answer(words[1], int(words[2]))
    elif words[0] == "flood":
        print(json.dumps(flood((words[1], int(words[2])), float(words[3]))))
    elif words[0] == "open":
        targets = [(address, int(words[3])) for address in words[2].split(",")]
        print(json.dumps(open_many(words[1], targets, int(words[4]), int(words[5]))))
    elif words[0] == "sweep":
        print(json.dumps(sweep(words[1], int(words[2]), int(words[3]))))


if __name__ == "__main__":
    main(sys.argv[1:])
