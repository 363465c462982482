"""Trouble that lasts: a log line and a Health message when it begins or changes, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

from romana_ovs.kube.api.messages import Health
from romana_ovs.model.errors import ApiError


class Grumble:
    """For one activity, named `what`; `send` hands messages to the controller. For one thread."""

    def __init__(self, log: logging.Logger, what: str, send: Callable[[object], None]) -> None:
        self._log = log
        self._what = what
        self._send = send
        self._said = ""

    def about(self, error: ApiError) -> None:
        """Something failed and will be tried again."""
        sentence = str(error)
        if sentence == self._said:
            return
        self._said = sentence
        self._log.warning("%s: %s; it will be tried again", self._what, sentence)
        self._send(Health(self._what, sentence))

    def fine(self) -> None:
        """It succeeded."""
        if not self._said:
            return
        self._said = ""
        self._log.info("%s: works again", self._what)
        self._send(Health(self._what))
