"""Reports lasting failures once: a log line and a Health message when one begins or changes, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

from romana_ovs.kube.api.messages import Health
from romana_ovs.model.errors import ApiError


class HealthLog:
    """The health of one activity, named `what`; `send` sends messages to the controller. For one thread."""

    def __init__(self, log: logging.Logger, what: str, send: Callable[[object], None]) -> None:
        self._log = log
        self._what = what
        self._send = send
        self._reported = ""

    def failed(self, error: ApiError) -> None:
        """It failed and will be tried again."""
        sentence = str(error)
        if sentence == self._reported:
            return
        self._reported = sentence
        self._log.warning("%s: %s; it is tried again", self._what, sentence)
        self._send(Health(self._what, sentence))

    def succeeded(self) -> None:
        """It succeeded."""
        if not self._reported:
            return
        self._reported = ""
        self._log.info("%s: works again", self._what)
        self._send(Health(self._what))
