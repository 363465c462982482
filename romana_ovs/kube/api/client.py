"""Requests to one API server: raw bytes, a deadline on everything, and a narrow error for whatever goes wrong.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.connection import HTTPConnection

from romana_ovs import __version__
from romana_ovs.kube.api.credentials import Access, read_access
from romana_ovs.kube.api.liveness import ANSWER_SECONDS, QUIET_SECONDS, Pulse
from romana_ovs.kube.api.responses import UNAUTHORIZED, parsed, refusal, told
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import ApiError, CredentialsError, TornError, UnreachableError

LOG = logging.getLogger("romana_ovs.api")

JSON = "application/json"
REQUEST_SECONDS = 30.0
"""Until an answer is complete, and until any begins."""
CONNECT_SECONDS = 5.0
CREDENTIALS_SECONDS = 30.0
"""How long requests wait for a plugin of the kubeconfig that another one has asked for a token."""
SILENT_SECONDS = 90.0
"""A stream without one byte for so long is dead, whatever else its server does: bookmarks come about once a minute."""
_PIECE = 1 << 16
_LONGEST_LINE = 64 << 20
"""Bytes; etcd takes no object above 1.5 MiB."""

# A peer that vanished (no FIN, no RST) is noticed within 30 seconds, whatever the kernel's defaults are.
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]

Query = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: status 2xx, headers with names in lower case, the body as it came."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """The body as plain values. Raises TornError when it is no JSON."""
        return parsed(self.data)


class Api:
    """One API server, for any number of threads. Nothing is read or connected to before the first request.

    Credentials are read again when a file of them is another, and after a 401. When nothing has come from any stream
    for `quiet` seconds the server is asked whether it lives (see Pulse).
    """

    def __init__(self, source: ApiSource, *, quiet: float = QUIET_SECONDS) -> None:
        self.source = source
        self._pulse = Pulse(self._lives, quiet=quiet)
        self._lock = threading.Lock()
        self._access: Access | None = None
        self._pool: urllib3.PoolManager | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        content_type: str = JSON,
        deadline: float = REQUEST_SECONDS,
    ) -> Answer:
        """The server's answer to one request; `body` is sent as JSON, `deadline` is in seconds from now.

        Raises ApiError, by kind, unless the status is 2xx. Nothing is tried twice.
        """
        end = time.monotonic() + deadline
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        silent = min(deadline, REQUEST_SECONDS)
        answer = _whole(self._open(method, path, query, data, content_type=content_type, silent=silent), end)
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, f"{method} {path}")
        return answer

    def stream(
        self, path: str, *, query: Query | None = None, deadline: float, silent: float = SILENT_SECONDS
    ) -> Iterator[bytes]:
        """The lines of an answer as they come, without their ends, until the server ends it.

        It returns when the server has begun to answer. Raises ApiError, by kind. Reading raises TornError when the
        last line is not complete, when nothing came for `silent` seconds, or when it has lasted for `deadline` seconds,
        and UnreachableError when the server has no pulse.
        """
        end = time.monotonic() + deadline
        begin = min(silent, REQUEST_SECONDS)
        response = self._open("GET", path, query, None, content_type=JSON, silent=begin)
        if response.status != 200:
            raise self._refusal(_whole(response, time.monotonic() + REQUEST_SECONDS), f"GET {path}")
        # A connection that ends with its answer is no longer the response's: its stream keeps the shorter limit.
        connected = getattr(response.connection, "sock", None)
        if connected is not None:
            connected.settimeout(silent)
        return self._streamed(response, end)

    def _streamed(self, response: urllib3.BaseHTTPResponse, end: float) -> Iterator[bytes]:
        try:
            yield from _lines(self._pulse.kept(_pieces(response, end), response.shutdown))
        finally:
            response.close()

    def _lives(self) -> bool:
        """Whether the server answers what everybody may ask; what it answers does not matter."""
        try:
            self.request("GET", "/version", deadline=ANSWER_SECONDS)
        except UnreachableError as error:
            LOG.info("no pulse: %s", error)
            return False
        except ApiError as error:
            LOG.debug("a pulse of a kind: %s", error)
        return True

    def _open(
        self, method: str, path: str, query: Query | None, data: bytes | None, *, content_type: str, silent: float
    ) -> urllib3.BaseHTTPResponse:
        access, pool = self._connected()
        headers = {"Accept": JSON, "User-Agent": f"romana-ovs/{__version__}"}
        with self._alone():  # it may run a plugin, or read a file: once, not in every thread
            if authorization := access.authorization():
                headers["Authorization"] = authorization
        if data is not None:
            headers["Content-Type"] = content_type
        try:
            return pool.request(
                method,
                f"{access.server}{path}" + (f"?{urlencode(query)}" if query else ""),
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, silent), read=silent),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            if isinstance(error, urllib3.exceptions.SSLError):
                self._forget()
            raise UnreachableError(f"{access.server}: {_cause(error)}") from error

    def _connected(self) -> tuple[Access, urllib3.PoolManager]:
        with self._alone():
            if self._access is None or self._pool is None or self._access.outdated:
                access = read_access(self.source)
                if not access.verified:
                    LOG.warning("%s: insecure-skip-tls-verify: anyone may pose as %s", self.source, access.server)
                self._access, self._pool = access, _pool(access)
            return self._access, self._pool

    def _forget(self) -> None:
        """Read the credentials again for the next request."""
        with self._alone():
            self._access = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one thread deals with credentials. Raises CredentialsError when another one does for too long."""
        if not self._lock.acquire(timeout=CREDENTIALS_SECONDS):
            raise CredentialsError(f"{self.source}: credentials are not to be had: their plugin does not answer")
        try:
            yield
        finally:
            self._lock.release()

    def _refusal(self, answer: Answer, asked: str) -> ApiError:
        if answer.status == UNAUTHORIZED:
            self._forget()
        after = _seconds(answer.headers.get("retry-after", ""))
        return refusal(answer.status, answer.data, asked=asked, after=after)


def _seconds(after: str) -> float | None:
    """What a Retry-After header means now (RFC 9110 section 10.2.3), None when it means nothing."""
    if not after:
        return None
    try:
        return float(urllib3.Retry().parse_retry_after(after))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _pool(access: Access) -> urllib3.PoolManager:
    options: dict[str, Any] = {"socket_options": _SOCKET_OPTIONS, "maxsize": 16}
    if access.tls is not None:
        options["ssl_context"] = access.tls
        if access.name:
            options["server_hostname"] = access.name
        if not access.verified:
            options["cert_reqs"] = "CERT_NONE"
            options["assert_hostname"] = False
    if access.proxy:
        return urllib3.ProxyManager(access.proxy, **options)
    return urllib3.PoolManager(**options)


def _pieces(response: urllib3.BaseHTTPResponse, end: float) -> Iterator[bytes]:
    """The body as it comes. Raises TornError: too early an end, a pause too long, or `end` (monotonic) has come."""
    try:
        for piece in response.stream(_PIECE):
            yield piece
            if time.monotonic() > end:
                raise TornError("an answer did not end in the time it was given")
    except urllib3.exceptions.HTTPError as error:
        raise TornError(f"an answer broke off: {_cause(error)}") from error


def _whole(response: urllib3.BaseHTTPResponse, end: float) -> Answer:
    """The complete answer; its connection can then be used again. Raises TornError."""
    try:
        data = b"".join(_pieces(response, end))
    except TornError:
        response.close()
        raise
    response.release_conn()
    return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, data)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    size = 0
    for piece in pieces:
        *whole, last = piece.split(b"\n")
        if whole:
            yield b"".join([*rest, whole[0]])
            yield from whole[1:]
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > _LONGEST_LINE:
            raise TornError(f"a line of more than {_LONGEST_LINE} bytes")
    if size:
        raise TornError("an answer ended in the middle of an object")


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    """What went wrong, without the names of the library's own objects."""
    inner: BaseException = error
    while isinstance(found := getattr(inner, "reason", None) or inner.__cause__, BaseException):
        inner = found
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "nothing came in time"
    return told(str(inner)) or type(inner).__name__
