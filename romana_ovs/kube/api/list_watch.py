"""Lists and watches resources, with one thread for each, as its reflector directs."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from romana_ovs.backoff import Backoff
from romana_ovs.kube.api.client import SILENT_SECONDS, Api
from romana_ovs.kube.api.component import Context
from romana_ovs.kube.api.object_decoder import decoder
from romana_ovs.kube.api.reflector import ListPage, Reflector, Watch
from romana_ovs.kube.api.resources import Resource
from romana_ovs.model.errors import ApiError
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.reflector")

LIST_SECONDS = 60.0
"""Deadline for one page of a listing."""
Send = Callable[[object], None]


class ListWatcher:
    """Lists and watches one resource until it is stopped. `pause` sleeps (tests replace it)."""

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
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._run, name=f"watch {self._resource}", daemon=True).start()

    def stop(self) -> None:
        """Send no more requests. The thread ends with its current request, which for a watch may take minutes."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._pause(self.step())
            except Exception:  # Must not end the thread: without events everything would look quiet.
                LOG.exception("internal error while watching %s, please report; it is listed again", self._resource)
                self._reflector = self._fresh()
                self._pause(LIST_SECONDS)

    def step(self) -> float:
        """Send one request, report its results, and return the seconds until the next one."""
        request = self._reflector.next_request()
        begin = time.monotonic()
        try:
            if isinstance(request, ListPage):
                self._list(request)
                return 0.0
            self._watch(request)
        except ApiError as error:
            messages, wait = self._reflector.on_failed(error, time.monotonic() - begin)
            for message in messages:
                self._send(message)
            return wait
        return self._reflector.on_ended(time.monotonic() - begin)

    def _list(self, request: ListPage) -> None:
        value = self._api.request("GET", request.path, query=request.query, deadline=LIST_SECONDS).json()
        for message in self._reflector.on_page(value, time.monotonic()):
            self._send(message)

    def _watch(self, request: Watch) -> None:
        lines = self._api.stream(request.path, query=request.query, deadline=request.deadline, silent=self._silent)
        for message in self._reflector.on_connected():
            self._send(message)
        for line in lines:
            for message in self._reflector.on_event(line, time.monotonic()):
                self._send(message)

    def _fresh(self) -> Reflector:
        decode = decoder(self._resource, self._settings)
        return Reflector(self._resource, decode, Backoff(random.random), jitter=random.random())


class ListWatchers:
    """The component that lists and watches all resources."""

    handles: tuple[type, ...] = ()

    def __init__(self, context: Context) -> None:
        self._watchers = [
            ListWatcher(context.api, resource, context.start.settings, context.send)
            for resource in context.start.resources
        ]

    def start(self) -> None:
        """Start all watchers."""
        for watcher in self._watchers:
            watcher.start()

    def handle(self, message: object) -> None:
        """It has no messages."""

    def stop(self) -> None:
        """Stop all watchers."""
        for watcher in self._watchers:
            watcher.stop()
