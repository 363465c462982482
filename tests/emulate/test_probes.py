"""What a probe makes of answers that come late or never."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import cast

from romana_ovs_emulate.agent.probes import Target, probe_all
from romana_ovs_emulate.agent.servers import SctpEndpoint

DEAF_SECONDS = 1.0


def test_a_datagram_is_sent_again_after_a_second() -> None:
    """As long as a switch that is slow may drop what it admits now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)

        def answer_late() -> None:
            opened = time.monotonic() + DEAF_SECONDS
            while True:
                request, client = server.recvfrom(100)
                if time.monotonic() > opened:
                    server.sendto(request + b" name", client)
                    return

        thread = threading.Thread(target=answer_late)
        thread.start()
        target = Target("127.0.0.1", server.getsockname()[1], "udp", "name")
        nothing = cast(SctpEndpoint, None)
        (result,) = asyncio.run(probe_all([target], nothing, seconds=8.0))
        thread.join()
    assert result["open"]
