"""Does what the CNI specification asks of a plugin: ADD, DEL, CHECK, GC, STATUS; and removes what was left behind."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from romana_ovs.attach import errors, namespaces
from romana_ovs.attach.attachment import (
    MAX_NONCE,
    Attachment,
    BridgeState,
    SandboxPort,
    device_name,
    device_stem,
    invalid_attachments,
    not_ready,
    second_interface,
    why_not_programmed,
    without_row,
)
from romana_ovs.attach.bridge_creation import BridgeSettings
from romana_ovs.attach.database import Database
from romana_ovs.attach.delete_queue import DeleteQueue
from romana_ovs.attach.errors import CniError
from romana_ovs.attach.gateway import GatewaySettings
from romana_ovs.attach.locks import KeyedLocks
from romana_ovs.attach.requests import PodName, Request, read_request
from romana_ovs.attach.results import differences, result
from romana_ovs.model.bridge import DatapathType
from romana_ovs.switch.ethertypes import NotFiltered, filter_ports

LOG = logging.getLogger("romana_ovs.attach")


@dataclass(frozen=True, slots=True)
class AttachSettings:
    """The settings of the agent: bridge, its database, socket, folders, MTU of pods in bytes, how long ADD waits.

    `conf_folder` is None when no configuration list is to be written, `health_port` when health is not served, and
    `new_bridge` when others make the bridge. `gateway` is None when the agent leaves the node's own address and the
    host's rules alone. `host_check`: whether it checks the host when it starts.
    """

    bridge: str
    ovsdb: str
    socket: Path
    queue: Path
    conf_folder: Path | None
    portmap: bool
    mtu: int
    wait_seconds: float
    health_port: int | None = None
    new_bridge: BridgeSettings | None = None
    gateway: GatewaySettings | None = None
    host_check: bool = False


class Operations:
    """Serves requests, from any thread; those of one attachment one after the other."""

    def __init__(
        self, settings: AttachSettings, database: Database, queue: DeleteQueue, host_fault: Callable[[], str]
    ) -> None:
        """`host_fault` gives the reason why this host cannot work as a node; empty for none."""
        self._settings = settings
        self._database = database
        self._queue = queue
        self._host_fault = host_fault
        self._attachments = KeyedLocks()
        self._pods = KeyedLocks()
        self._in_progress: set[str] = set()
        """The devices that an ADD is making."""
        self._filter_failure = ""
        self._filtered: set[tuple[str, DatapathType]] = set()
        """The devices that were filtered since the start of this process, for which datapath."""

    def handle(self, data: bytes) -> dict[str, Any]:
        """The result of the request in a message of the plugin; empty for all but ADD. Raises CniError."""
        request = read_request(data)
        start = time.monotonic()
        words = (
            f"{request.command} {request.attachment.container[:13]} {request.pod.key if request.pod else ''}".strip()
        )
        try:
            answer = self._serve(request)
        except CniError as error:
            LOG.warning("%s: code %d: %s (%.0f ms)", words, error.code, error, 1000 * (time.monotonic() - start))
            raise
        LOG.info("%s: done (%.0f ms)", words, 1000 * (time.monotonic() - start))
        return answer

    def _serve(self, request: Request) -> dict[str, Any]:
        if request.command == "ADD" and request.pod is not None:
            return self._add(request, request.pod)
        if request.command == "DEL":
            self._delete(request.attachment)
        elif request.command == "CHECK":
            self._check(request)
        elif request.command == "GC":
            self._collect_invalid(request.valid or frozenset())
        elif reason := self.not_ready():
            raise CniError(errors.NOT_AVAILABLE, reason)
        return {}

    def not_ready(self) -> str:
        """Why no pod can be attached, in a sentence; empty when one can."""
        return not_ready(self._database.state, self._settings.bridge) or self._host_fault()

    # ADD.

    def _add(self, request: Request, pod: PodName) -> dict[str, Any]:
        """Make the device and the port, wait until the port is programmed, and only then give the pod its address.

        So its first packet meets the tables. Whatever fails, nothing stays.
        """
        attachment = request.attachment
        device = device_name(attachment, secrets.randbelow(MAX_NONCE))
        port = SandboxPort(device, pod.key, pod.uid, attachment, request.netns)
        self._in_progress.add(device)
        try:
            with self._attachments.locked(attachment):
                self._queue.discard(attachment)
                self._make(port, attachment)
            self._filter(device)  # While the controller works: the pod sends nothing before its device is up.
            address = self._programmed_address(port)
            with self._attachments.locked(attachment):
                # A DEL, or an ADD of a newer sandbox of the pod, may have come first.
                self._require(port)
                on_kernel = self._database.state.datapath is DatapathType.SYSTEM
                namespaces.configure(port.netns, attachment.ifname, address, checksums=on_kernel)
        except BaseException:
            self._roll_back(port)
            raise
        finally:
            self._in_progress.discard(device)
        return result(port, address, self._settings.mtu, request.previous)

    def _make(self, port: SandboxPort, attachment: Attachment) -> None:
        """Make the veth pair and the port, in place of what an earlier ADD has left. Raises CniError."""
        if other := second_interface(self._database.state, port):
            reason = f"pod {port.pod} has one address, which is that of its device {other}"
            raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_IFNAME: {attachment.ifname!r}: {reason}")
        self._remove(self._database.state.of(attachment))
        mtu = self._settings.mtu
        try:
            namespaces.make_pair(port.netns, attachment.ifname, port.name, mtu)
        except CniError as error:
            if error.code != errors.INTERFACE_EXISTS or not self._remove_devices(attachment):
                raise
            namespaces.make_pair(port.netns, attachment.ifname, port.name, mtu)
        with self._pods.locked(port.pod):
            self._database.add(port)

    def _filter(self, device: str) -> None:
        """Drop frames other than IPv4 and ARP before the switch, where the kernel supports that; the tables do, too."""
        datapath = self._database.state.datapath
        try:
            filter_ports([device], datapath)
            self._filtered.add((device, datapath))
        except NotFiltered as error:
            if not self._filter_failure:
                self._filter_failure = str(error)
                LOG.warning("frames of every ethertype reach the switch: %s", error)

    def _programmed_address(self, port: SandboxPort) -> IPv4Address:
        """Wait for the controller. Raises CniError with the reason when it takes too long, or the port is removed."""

        def check(state: BridgeState) -> SandboxPort | bool:
            row = state.ports.get(port.name)
            return row is None or (row if row.programmed_address is not None else False)

        ended = self._database.wait_until(check, time.monotonic() + self._settings.wait_seconds)
        row = self._require(port)
        address = row.programmed_address
        if not ended or address is None:
            reason = why_not_programmed(self._database.state, self._settings.bridge, row)
            raise CniError(errors.TRY_AGAIN_LATER, f"pod {port.pod}: {reason}")
        return address

    def _require(self, port: SandboxPort) -> SandboxPort:
        """The port as it is now. Raises CniError when it was removed meanwhile."""
        row = self._database.state.ports.get(port.name)
        if row is None:
            reason = "its port was removed, by DEL or for a newer sandbox of the pod"
            raise CniError(errors.TRY_AGAIN_LATER, f"pod {port.pod}: {reason}")
        return row

    def _roll_back(self, port: SandboxPort) -> None:
        """Remove port and device; what cannot be removed now is collected when it can."""
        with suppress(CniError):
            namespaces.remove(port.name)
        with suppress(CniError):
            if port.name in self._database.state.ports:
                self._database.remove([port.name])

    # DEL.

    def _delete(self, attachment: Attachment) -> None:
        """Remove port and device, as far as they are there. Raises CniError only when a DEL cannot even be queued."""
        with self._attachments.locked(attachment):
            try:
                if not self._database.state.connected:
                    raise CniError(errors.TRY_AGAIN_LATER, "the database of Open vSwitch cannot be reached")
                ports = self._database.state.of(attachment)
                self._remove(ports)
                if not ports:
                    self._remove_devices(attachment)
                self._queue.discard(attachment)
            except CniError as error:
                LOG.warning("DEL of %s is queued: %s", attachment.container, error)
                with suppress(CniError):
                    self._remove_devices(attachment)
                self._enqueue(attachment)

    def _enqueue(self, attachment: Attachment) -> None:
        try:
            self._queue.put(attachment)
        except OSError as error:
            raise CniError(errors.IO_FAILURE, f"DEL cannot be queued: {error.strerror}") from error

    def _remove(self, ports: Iterable[SandboxPort]) -> None:
        """Remove ports from the bridge, then their devices. Raises CniError."""
        names = [port.name for port in ports]
        self._database.remove(names)
        for name in names:
            namespaces.remove(name)

    def _remove_devices(self, attachment: Attachment) -> bool:
        """Remove devices of an attachment that have no port; returns whether there were any. Raises CniError."""
        stem = device_stem(attachment)
        names = [name for name in namespaces.devices() if name.startswith(stem) and name not in self._in_progress]
        for name in names:
            namespaces.remove(name)
        return bool(names)

    # CHECK and GC.

    def _check(self, request: Request) -> None:
        """Raises CniError when something is not as ADD has left it."""
        state, attachment = self._database.state, request.attachment
        if not state.connected:
            raise CniError(errors.TRY_AGAIN_LATER, not_ready(state, self._settings.bridge))
        ports = state.of(attachment)
        if not ports:
            raise CniError(errors.NOT_AS_ADDED, f"bridge {self._settings.bridge} has no port of {attachment.container}")
        device = namespaces.read(request.netns, attachment.ifname)
        if device is None:
            raise CniError(errors.NOT_AS_ADDED, f"{request.netns} has no device {attachment.ifname}")
        if sentences := list(differences(request.previous or {}, ports[0], device)):
            raise CniError(errors.NOT_AS_ADDED, "; ".join(sentences))

    def _collect_invalid(self, valid: frozenset[Attachment]) -> None:
        """Remove all attachments but the valid ones, and what is left over. Raises CniError with all that failed."""
        failures = []
        for attachment in invalid_attachments(self._database.state, valid):
            try:
                self._delete(attachment)
            except CniError as error:
                failures.append(f"{attachment.container}: {error}")
        try:
            self.collect()
        except CniError as error:
            failures.append(str(error))
        if failures:
            raise CniError(errors.TRY_AGAIN_LATER, "; ".join(failures))

    # What was left behind.

    def collect(self) -> None:
        """Do queued DELs, and remove ports whose namespace is gone, and devices without a port. Raises CniError.

        Whether a pod still exists does not matter: a pod that has ended may still be running. Ports that this process
        has not filtered yet are filtered: those of an earlier version, and all after a change of the datapath.
        """
        present = namespaces.devices()
        in_progress = frozenset(self._in_progress)
        # In this order: a device that its ADD has finished with has a port by now.
        state = self._database.state
        if not state.connected or not state.exists:
            return
        for attachment in self._queue.attachments():
            self._delete(attachment)
        for port in state.ports.values():
            if port.attachment is not None and port.name not in in_progress and not namespaces.exists(port.netns):
                LOG.info("the namespace %s of pod %s is gone: its port is removed", port.netns, port.pod)
                self._delete(port.attachment)
        for name in without_row(present, state, in_progress):
            LOG.info("device %s has no port and is removed", name)
            namespaces.remove(name)
        self._filter_again(present, in_progress)

    def _filter_again(self, present: Iterable[str], in_progress: frozenset[str]) -> None:
        state = self._database.state
        ports = state.ports.keys() & set(present) - in_progress
        self._filtered = {each for each in self._filtered.copy() if each[0] in ports | in_progress}
        for name in sorted(ports):
            if (name, state.datapath) not in self._filtered:
                self._filter(name)
