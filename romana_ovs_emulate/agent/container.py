"""Runs the agent of a pod in a container, with standard input and output as its control socket.

Run as `python3 -m romana_ovs_emulate.agent.container NAME`, by `kubectl exec -i`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading

from romana_ovs_emulate.agent.pod import PodAgent

CHUNK_BYTES = 1 << 16


def main() -> None:
    """Serve until standard input ends."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_copy_input, args=(ours,), daemon=True).start()
    threading.Thread(target=_copy_output, args=(ours,), daemon=True).start()
    asyncio.run(PodAgent(sys.argv[1], theirs).run())


def _copy_input(control: socket.socket) -> None:
    while data := os.read(sys.stdin.fileno(), CHUNK_BYTES):
        control.sendall(data)
    control.shutdown(socket.SHUT_WR)


def _copy_output(control: socket.socket) -> None:
    while data := control.recv(CHUNK_BYTES):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
