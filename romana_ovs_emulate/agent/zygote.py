"""Forks one agent for each pod, and removes the run when the parent is killed.

Run as `python -m romana_ovs_emulate.agent.zygote FD FOLDER`: FD is a SOCK_SEQPACKET socket to the parent,
FOLDER the run's. Each packet requests one agent: `{"pod": ..., "netns": path, "offloads_checksums": bool}` with its
control socket as ancillary data; the answer is `{"pid": n}` or `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from romana_ovs_emulate.agent.pod import PodAgent
from romana_ovs_emulate.netns import enter

PR_SET_PDEATHSIG = 1
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
POD_INTERFACE = "eth0"
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serve requests until the parent ends, then remove its run if it is dead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # a collection in an agent would write to, and so copy, every page that it shares with this process
    requests = socket.socket(fileno=int(sys.argv[1]))
    folder = Path(sys.argv[2])
    while True:
        packet, descriptors, _, _ = socket.recv_fds(requests, 65536, 1)
        if not packet:
            break
        requests.send(json.dumps(_fork(requests, json.loads(packet), descriptors[0])).encode())
    requests.close()
    _remove_if_dead(folder)


def checksums_off(interface: str) -> None:
    """Switch TX checksum offload off: the userspace datapath does not fill checksums in. Raises OSError."""
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, request)


def _fork(requests: socket.socket, request: dict[str, Any], descriptor: int) -> dict[str, object]:
    """Fork the agent of a pod; `{"pid": ...}` or `{"error": ...}` in the parent, never returns in the child."""
    receiver, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        requests.close()
        os.close(receiver)
        _become_pod(request, descriptor, ready)
    os.close(descriptor)
    os.close(ready)
    with os.fdopen(receiver) as pipe:
        error = pipe.read()
    return {"error": error} if error else {"pid": pid}


def _become_pod(request: dict[str, Any], descriptor: int, ready: int) -> None:
    """Turn this process into the agent of a pod. Closing `ready` tells the parent that it is up."""
    code = 1
    try:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        enter(request["netns"])
        if not request["offloads_checksums"]:
            checksums_off(POD_INTERFACE)
        agent = PodAgent(request["pod"], socket.socket(fileno=descriptor))
        os.close(ready)
        asyncio.run(agent.run())
        code = 0
    except OSError as error:
        os.write(ready, str(error).encode())
    finally:
        os._exit(code)


def _remove_if_dead(folder: Path) -> None:
    """Remove the run if its owner was killed before it removed it."""
    from romana_ovs_emulate.runs import remove_if_dead

    remove_if_dead(folder)


if __name__ == "__main__":
    main()
