"""Log lines about trouble that lasts: one when it begins or changes, one when it is over."""

from __future__ import annotations

import logging

from romana_ovs.model.errors import ApiError


class Grumble:
    """For one activity, named `what`; safe to use from one thread."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._said = ""

    def about(self, error: ApiError) -> None:
        """Something failed and will be tried again."""
        sentence = str(error)
        if sentence != self._said:
            self._log.warning("%s: %s; it will be tried again", self._what, sentence)
        self._said = sentence

    def fine(self) -> None:
        """It succeeded."""
        if self._said:
            self._log.info("%s: works again", self._what)
        self._said = ""
