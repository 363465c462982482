"""Checks the requirements of this host when the controller starts and every ten minutes, and reports what is wrong.

The checks are those of `romana-ovs node check`. Nothing waits for them, and whatever they find, the controller goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from romana_ovs import runtime
from romana_ovs.flag import Flag
from romana_ovs.model.errors import Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.checks import check_host
from romana_ovs.preflight.collect import read_facts
from romana_ovs.preflight.facts import HostFacts

LOG = logging.getLogger("romana_ovs.host")

FIRST_SECONDS = 3.0
"""Before the first check: tables come first, and the limits of zones are among the facts."""
CHECK_SECONDS = 600.0
"""Between two checks: an operator may have changed the host."""
UNIX = "unix:"


class HostChecks:
    """Keeps the problems of this host for every database of `remotes` on it, and raises `flag` when they change.

    `run` is a green thread's job.
    """

    def __init__(
        self,
        remotes: Sequence[str],
        settings: Settings,
        flag: Flag,
        *,
        read: Callable[[str], HostFacts] = read_facts,
    ) -> None:
        self._remotes = tuple(remote for remote in remotes if remote.startswith(UNIX))
        self._settings = settings
        self._flag = flag
        self._read = read
        self.problems: tuple[str, ...] = ()
        """What is wrong, in sentences with what to do."""

    def run(self) -> None:
        """Never returns."""
        time.sleep(FIRST_SECONDS)
        while True:
            self.check()
            time.sleep(CHECK_SECONDS)

    def check(self) -> None:
        """Check once, and log what was not a problem before; an internal error is logged, and changes nothing."""
        try:
            problems = tuple(dict.fromkeys(text for remote in self._remotes for text in self._problems_at(remote)))
        except Exception:  # A mistake in a check must not end the controller.
            LOG.exception("internal error in the checks of this host; please report this")
            return
        for text in problems:
            if text not in self.problems:
                LOG.warning("%s", text)
        for text in self.problems:
            if text not in problems:
                LOG.info("no longer: %s", text)
        if problems != self.problems:
            self.problems = problems
            self._flag.set()

    def _problems_at(self, remote: str) -> list[str]:
        facts = runtime.run_in_thread(lambda: self._read(remote))
        if not facts.own_namespace:
            # An emulated node: its network is not that of this process.
            return []
        report = check_host(facts, self._settings, by_controller=True)
        return [f"node check: {each}" for each in report.at_least(Severity.WARNING)]
