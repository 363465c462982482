"""Sends requests to one API server, with a deadline on everything and an error class for each kind of failure.

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
from romana_ovs.kube.api.liveness import ANSWER_SECONDS, QUIET_SECONDS, LivenessCheck
from romana_ovs.kube.api.responses import UNAUTHORIZED, api_error, parsed, sanitized
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import ApiError, CredentialsError, TornError, UnreachableError

LOG = logging.getLogger("romana_ovs.api")

JSON = "application/json"
REQUEST_SECONDS = 30.0
"""Deadline for a complete response, and for the beginning of one."""
CONNECT_SECONDS = 5.0
CREDENTIALS_SECONDS = 30.0
"""Seconds that requests wait for a credential plugin that another request has started."""
SILENT_SECONDS = 90.0
"""Seconds without data after which a stream is dead: bookmarks are sent about once a minute."""
_CHUNK = 1 << 16
_LONGEST_LINE = 64 << 20
"""Bytes; etcd accepts objects of up to 1.5 MiB."""

# A peer that vanished (no FIN, no RST) is detected within 30 seconds, whatever the kernel's defaults are.
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
    """A response: status 2xx, headers with lower-case names, the raw body."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """The body as plain values. Raises TornError when it is not JSON."""
        return parsed(self.data)


class Api:
    """A client of one API server, for any number of threads. It connects with the first request.

    Credentials are read again when their files change, and after a 401. When no stream has received data for `quiet`
    seconds, the server is checked (see LivenessCheck).
    """

    def __init__(self, source: ApiSource, *, quiet: float = QUIET_SECONDS) -> None:
        self.source = source
        self._liveness = LivenessCheck(self._is_alive, quiet=quiet)
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
        """The response to one request; `body` is sent as JSON, `deadline` is in seconds.

        Raises a subclass of ApiError unless the status is 2xx. Nothing is retried.
        """
        end = time.monotonic() + deadline
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        silent = min(deadline, REQUEST_SECONDS)
        answer = _read_all(self._open(method, path, query, data, content_type=content_type, silent=silent), end)
        if not 200 <= answer.status < 300:
            raise self._error(answer, f"{method} {path}")
        return answer

    def stream(
        self, path: str, *, query: Query | None = None, deadline: float, silent: float = SILENT_SECONDS
    ) -> Iterator[bytes]:
        """The lines of a response as they are received, without line ends, until the server ends it.

        It returns when the server has begun to respond. Raises a subclass of ApiError. Reading raises TornError when
        the last line is incomplete, without data for `silent` seconds, or after `deadline` seconds, and
        UnreachableError when the server is not alive.
        """
        end = time.monotonic() + deadline
        begin = min(silent, REQUEST_SECONDS)
        response = self._open("GET", path, query, None, content_type=JSON, silent=begin)
        if response.status != 200:
            raise self._error(_read_all(response, time.monotonic() + REQUEST_SECONDS), f"GET {path}")
        # A connection that closes after the response is detached already: its stream keeps the shorter timeout.
        connected = getattr(response.connection, "sock", None)
        if connected is not None:
            connected.settimeout(silent)
        return self._stream_lines(response, end)

    def _stream_lines(self, response: urllib3.BaseHTTPResponse, end: float) -> Iterator[bytes]:
        try:
            yield from _lines(self._liveness.guard(_chunks(response, end), response.shutdown))
        finally:
            response.close()

    def _is_alive(self) -> bool:
        """Whether the server responds at all, with whatever status."""
        try:
            self.request("GET", "/version", deadline=ANSWER_SECONDS)
        except UnreachableError as error:
            LOG.info("not alive: %s", error)
            return False
        except ApiError as error:
            LOG.debug("alive, with an error: %s", error)
        return True

    def _open(
        self, method: str, path: str, query: Query | None, data: bytes | None, *, content_type: str, silent: float
    ) -> urllib3.BaseHTTPResponse:
        access, pool = self._connected()
        headers = {"Accept": JSON, "User-Agent": f"romana-ovs/{__version__}"}
        with self._credentials_lock():  # It may run a plugin or read a file: once, not in every thread.
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
                self._drop_credentials()
            raise UnreachableError(f"{access.server}: {_cause(error)}") from error

    def _connected(self) -> tuple[Access, urllib3.PoolManager]:
        with self._credentials_lock():
            if self._access is None or self._pool is None or self._access.outdated:
                access = read_access(self.source)
                if not access.verified:
                    LOG.warning("%s: insecure-skip-tls-verify: anyone can impersonate %s", self.source, access.server)
                self._access, self._pool = access, _pool(access)
            return self._access, self._pool

    def _drop_credentials(self) -> None:
        """Read the credentials again for the next request."""
        with self._credentials_lock():
            self._access = None

    @contextmanager
    def _credentials_lock(self) -> Iterator[None]:
        """Serializes access to credentials. Raises CredentialsError when another thread takes too long."""
        if not self._lock.acquire(timeout=CREDENTIALS_SECONDS):
            raise CredentialsError(f"{self.source}: no credentials: their plugin does not respond")
        try:
            yield
        finally:
            self._lock.release()

    def _error(self, answer: Answer, request: str) -> ApiError:
        if answer.status == UNAUTHORIZED:
            self._drop_credentials()
        after = _seconds(answer.headers.get("retry-after", ""))
        return api_error(answer.status, answer.data, request=request, after=after)


def _seconds(after: str) -> float | None:
    """The seconds of a Retry-After header (RFC 9110 section 10.2.3); None when it is invalid."""
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


def _chunks(response: urllib3.BaseHTTPResponse, end: float) -> Iterator[bytes]:
    """The body as it is received. Raises TornError when it ends early, pauses too long, or lasts beyond `end`."""
    try:
        for chunk in response.stream(_CHUNK):
            yield chunk
            if time.monotonic() > end:
                raise TornError("a response took longer than its deadline")
    except urllib3.exceptions.HTTPError as error:
        raise TornError(f"a response was interrupted: {_cause(error)}") from error


def _read_all(response: urllib3.BaseHTTPResponse, end: float) -> Answer:
    """The complete response; its connection can then be reused. Raises TornError."""
    try:
        data = b"".join(_chunks(response, end))
    except TornError:
        response.close()
        raise
    response.release_conn()
    return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, data)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    size = 0
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        if whole:
            yield b"".join([*rest, whole[0]])
            yield from whole[1:]
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > _LONGEST_LINE:
            raise TornError(f"a line of more than {_LONGEST_LINE} bytes")
    if size:
        raise TornError("a response ended in the middle of an object")


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    """The cause, without names of objects of the library."""
    inner: BaseException = error
    while isinstance(cause := getattr(inner, "reason", None) or inner.__cause__, BaseException):
        inner = cause
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "no data in time"
    return sanitized(str(inner)) or type(inner).__name__
