"""Following resources: one thread for each, which asks what its reflector says and tells what comes of it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from romana_ovs.kube.api.backoff import Backoff
from romana_ovs.kube.api.client import SILENT_SECONDS, Api
from romana_ovs.kube.api.component import Surroundings
from romana_ovs.kube.api.object_decoder import decoder
from romana_ovs.kube.api.reflector import ListPage, Reflector, Watch
from romana_ovs.kube.api.resources import Resource
from romana_ovs.model.errors import ApiError
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.follow")

LIST_SECONDS = 60.0
"""Until a page of a listing is complete."""
Send = Callable[[object], None]


class Follower:
    """Follows one resource until it is stopped. `pause` waits for so many seconds (tests have it return at once)."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        settings: Settings,
        send: Send,
        *,
        pause: Callable[[float], object] | None = None,
        silent: float = SILENT_SECONDS,
    ) -> None:
        self._api = api
        self._resource = resource
        self._settings = settings
        self._send = send
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._silent = silent
        self._reflector = self._fresh()

    def start(self) -> None:
        """Follow, in a thread of its own that ends with the process."""
        threading.Thread(target=self._run, name=f"follow {self._resource}", daemon=True).start()

    def stop(self) -> None:
        """Ask for nothing more. Its thread ends with the request under way, which for a watch may be minutes."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._pause(self.step())
            except Exception:  # A mistake of ours must not end the thread: everything would look quiet for ever.
                LOG.exception("%s: a mistake of ours; listing it anew", self._resource)
                self._reflector = self._fresh()
                self._pause(LIST_SECONDS)

    def step(self) -> float:
        """Ask once, tell what comes of it, and return how many seconds to wait before asking again."""
        ask = self._reflector.ask()
        begin = time.monotonic()
        try:
            if isinstance(ask, ListPage):
                self._list(ask)
                return 0.0
            self._watch(ask)
        except ApiError as error:
            messages, wait = self._reflector.failed(error, time.monotonic() - begin)
            for message in messages:
                self._send(message)
            return wait
        return self._reflector.ended(time.monotonic() - begin)

    def _list(self, ask: ListPage) -> None:
        value = self._api.request("GET", ask.path, query=ask.query, deadline=LIST_SECONDS).json()
        for message in self._reflector.page(value, time.monotonic()):
            self._send(message)

    def _watch(self, ask: Watch) -> None:
        lines = self._api.stream(ask.path, query=ask.query, deadline=ask.deadline, silent=self._silent)
        for message in self._reflector.opened():
            self._send(message)
        for line in lines:
            for message in self._reflector.line(line, time.monotonic()):
                self._send(message)

    def _fresh(self) -> Reflector:
        decode = decoder(self._resource, self._settings)
        return Reflector(self._resource, decode, Backoff(random.random), jitter=random.random())


class Followers:
    """The Part of the Kubernetes process that lists and watches."""

    wants: tuple[type, ...] = ()

    def __init__(self, around: Surroundings) -> None:
        self._followers = [
            Follower(around.api, resource, around.start.settings, around.send) for resource in around.start.resources
        ]

    def start(self) -> None:
        """Follow every resource."""
        for follower in self._followers:
            follower.start()

    def take(self, message: object) -> None:
        """There is none that it wants."""

    def end(self) -> None:
        """Ask for nothing more."""
        for follower in self._followers:
            follower.stop()
