"""Reads the address of the API server and credentials, from a kubeconfig file or a pod's service account.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/; the reading itself,
including exec plugins, is done by the `kubernetes` package. It keeps what it has read (token files, certificates), so
it is called again whenever one of the files has changed.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import CredentialsError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The files of a pod's service account (kubernetes.io: Accessing the Kubernetes API from a Pod)."""
_FILES = ("tokenFile", "client-certificate", "client-key", "certificate-authority")

Stamp = tuple[object, ...]
"""Changes when the content of one of some files changes."""


class Access:
    """The credentials of an ApiSource: `server` is a URL, `tls` None for plain HTTP, `proxy` a URL or empty.

    `name` is the expected name in the server's certificate, where it differs from the URL.
    """

    def __init__(self, configuration: Any, files: tuple[Path, ...], stamp: Stamp) -> None:
        self._configuration = configuration
        self._files = files
        self._stamp = stamp
        self.server: str = configuration.host.rstrip("/")
        self.name: str = configuration.tls_server_name or ""
        self.proxy = _proxy(configuration)
        self.tls = _tls(configuration) if self.server.startswith("https:") else None
        self.verified: bool = self.tls is None or self.tls.verify_mode == ssl.CERT_REQUIRED

    @property
    def outdated(self) -> bool:
        """Whether one of the files has changed since."""
        return _stamp(self._files) != self._stamp

    def authorization(self) -> str:
        """The Authorization header, empty for none; renewed when it has expired. Raises CredentialsError."""
        from kubernetes.config import ConfigException

        try:
            # A token file may end in a newline, a header must not.
            header = (self._configuration.get_api_key_with_prefix("BearerToken", "authorization") or "").strip()
        except (ConfigException, OSError, ValueError, KeyError) as error:
            raise CredentialsError(_reason(error)) from error
        if not header.isascii() or not header.isprintable():
            raise CredentialsError("the token has invalid characters")
        return header


def read_access(source: ApiSource) -> Access:
    """The present credentials of `source`. Raises CredentialsError."""
    from kubernetes import config
    from kubernetes.client import Configuration

    _check_files(source)
    files = tuple(_files(source))
    stamp = _stamp(files)
    configuration = Configuration()
    try:
        # Certificates within the kubeconfig have to pass through temporary files.
        with tempfile.TemporaryDirectory(prefix="romana-ovs-") as folder:
            if source.kubeconfig:
                config.load_kube_config(
                    config_file=source.kubeconfig,
                    context=source.context or None,
                    client_configuration=configuration,
                    persist_config=False,
                    temp_file_path=folder,
                )
            else:
                config.load_incluster_config(client_configuration=configuration)
            return Access(configuration, files, stamp)
    except (TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        # The package raises these for text that is no kubeconfig.
        raise CredentialsError(f"{source}: is no kubeconfig ({_reason(error)})") from error
    except (config.ConfigException, OSError, ValueError) as error:
        raise CredentialsError(f"{source}: {_reason(error)}") from error


def _stamp(files: tuple[Path, ...]) -> Stamp:
    return tuple(_state(path) for path in files)


def _check_files(source: ApiSource) -> None:
    """Raise CredentialsError for a kubeconfig that cannot be read; the package would ignore it."""
    for name in filter(None, source.kubeconfig.split(os.pathsep)):
        try:
            Path(name).expanduser().read_bytes()
        except OSError as error:
            raise CredentialsError(_reason(error)) from error


def _files(source: ApiSource) -> Iterator[Path]:
    """The files of `source`."""
    if not source.kubeconfig:
        yield from (ACCOUNT / "token", ACCOUNT / "ca.crt")
        return
    for name in filter(None, source.kubeconfig.split(os.pathsep)):
        path = Path(name).expanduser()
        yield path
        yield from _named_in(path)


def _named_in(path: Path) -> Iterator[Path]:
    """The files that a kubeconfig refers to, relative to its own folder."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return
    for fields in (*_fields_of_entries(content, "users", "user"), *_fields_of_entries(content, "clusters", "cluster")):
        for key in _FILES:
            if isinstance(name := fields.get(key), str):
                yield path.parent / name


def _fields_of_entries(content: object, kind: str, name: str) -> Iterator[dict[str, object]]:
    """The field `name` of every entry of the list `kind`."""
    entries = content.get(kind) if isinstance(content, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        fields = entry.get(name) if isinstance(entry, dict) else None
        if isinstance(fields, dict):
            yield fields


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _tls(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def _proxy(configuration: Any) -> str:
    from kubernetes.client.rest import should_bypass_proxies

    if not configuration.proxy or should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
        return ""
    return str(configuration.proxy)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
