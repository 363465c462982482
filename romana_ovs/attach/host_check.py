"""Runs `romana-ovs node check` when the agent starts, and gives the reason why this host cannot work as a node.

In a process of its own: the check needs eventlet, which this process must not import.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time

from romana_ovs.attach.attachment import BridgeState
from romana_ovs.attach.database import Database

LOG = logging.getLogger("romana_ovs.attach")

CHECK_SECONDS = 120.0
"""How long a check may take."""
REPEAT_SECONDS = 10.0
"""Between two checks of a host that cannot work."""
NETWORK_SECONDS = 30.0
"""How long the first check is awaited while the controller has not written the pods' network."""
FATAL = frozenset({"switch-version", "datapath-features", "kernel-modules", "address-overlap", "tunnel-port"})
"""The checks whose errors mean that no pod of this host could be reached."""


def fatal_errors(output: str) -> tuple[str, ...]:
    """The errors in the output of `node check --json` with which this host cannot work, in sentences.

    Raises ValueError, LookupError and TypeError for any other output.
    """
    document = json.loads(output)
    if not isinstance(document, dict):
        raise ValueError("no object")
    return tuple(
        f"{each['subject']}: {each['reason']}. {each['action']}"
        for each in document.get("findings", ())
        if each["check"] in FATAL and each["severity"] == "error"
    )


class HostCheck:
    """Checks the host of the Open vSwitch at `remote` once the controller has written the pods' network there."""

    def __init__(self, remote: str, database: Database) -> None:
        self._remote = remote
        self._database = database
        self._process: subprocess.Popen[str] | None = None
        self._reason = ""
        self._pending = threading.Event()

    @property
    def pending(self) -> bool:
        """Whether the first check is awaited: until then a new node should not be offered to the runtime."""
        return self._pending.is_set()

    @property
    def reason(self) -> str:
        """Why this host cannot work as a node, in a sentence; empty while that is not known."""
        return self._reason

    def start(self) -> None:
        """Begin, in a thread that ends when the host can work."""
        self._pending.set()
        threading.Thread(target=self._run, name="host check", daemon=True).start()

    def stop(self) -> None:
        """End a check that runs."""
        if self._process is not None:
            self._process.kill()

    def _run(self) -> None:
        while True:
            while not self._database.wait_until(_has_network, time.monotonic() + NETWORK_SECONDS):
                self._pending.clear()
            errors = self._errors()
            before, self._reason = self._reason, errors[0] if errors else ""
            self._pending.clear()
            for text in errors:
                if text != before:
                    LOG.error("this host cannot work as a node: %s", text)
            if not errors:
                return
            time.sleep(REPEAT_SECONDS)

    def _errors(self) -> tuple[str, ...]:
        """What is wrong; nothing when the check itself fails, which the log shows."""
        argv = [sys.executable, "-m", "romana_ovs", "node", "check", "--json", "--ovsdb", self._remote]
        try:
            self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            output, error = self._process.communicate(timeout=CHECK_SECONDS)
            return fatal_errors(output)
        except subprocess.TimeoutExpired:
            self.stop()
            LOG.warning("node check has not ended within %.0f s", CHECK_SECONDS)
        except (OSError, ValueError, LookupError, TypeError) as failure:
            LOG.warning("node check failed: %s", failure)
        return ()


def _has_network(state: BridgeState) -> bool:
    return state.node_network is not None
