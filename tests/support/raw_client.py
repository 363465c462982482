"""Raw requests to an API server, with nothing of the package between the test and the wire."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import urllib3

from tests.support.api_objects import Object

SECONDS = 30.0
JSON = "application/json"
MERGE = "application/merge-patch+json"


class Refused(Exception):
    """The API server answered with an error: its HTTP status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Client:
    """A user's requests. Paths are those of the API, such as `/api/v1/nodes`; every error raises Refused."""

    def __init__(self, url: str, context: ssl.SSLContext, token: str = "") -> None:
        self._pool = urllib3.PoolManager(ssl_context=context, retries=False)
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Self:
        """The user of a kubeconfig that stands alone, as `write_kubeconfig` writes them."""
        config = json.loads(path.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        if "client-key-data" in user:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
                file.flush()
                context.load_cert_chain(file.name)
        return cls(cluster["server"], context, user.get("token", ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()

    def get(self, path: str) -> Object:
        return self.request("GET", path)

    def create(self, path: str, body: Object, *, strict: bool = False) -> Object:
        """The object that is made in a collection; with `strict`, fields that are not known are errors."""
        query = f"fieldValidation={'Strict' if strict else 'Ignore'}"
        return self.request("POST", f"{path}{'&' if '?' in path else '?'}{query}", body)

    def put(self, path: str, body: Object) -> Object:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Object) -> Object:
        """The object after a merge patch."""
        return self.request("PATCH", path, body, kind=MERGE)

    def delete(self, path: str) -> Object:
        return self.request("DELETE", path)

    def request(self, method: str, path: str, body: Object | None = None, *, kind: str = JSON) -> Object:
        headers = {**self._headers, "Accept": JSON, **({"Content-Type": kind} if body is not None else {})}
        data = json.dumps(body).encode() if body is not None else None
        answer = self._pool.request(method, self._url + path, body=data, headers=headers, timeout=SECONDS)
        if answer.status >= 400:
            raise Refused(answer.status, _message(answer.data))
        return dict(json.loads(answer.data))


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError):
        return data.decode(errors="replace")


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
