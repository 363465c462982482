"""Reads the requests that the plugin passes on: JSON with the runtime's variables, the configuration and prevResult."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from romana_ovs.attach import errors
from romana_ovs.attach.attachment import Attachment
from romana_ovs.attach.errors import CniError
from romana_ovs.model.objects import PodKey

COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_IFNAME = re.compile(r"[^/:\s]{1,15}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9-]*")
_VALID = "cni.dev/valid-attachments"
_UNSUPPORTED = ("ipam", "dns", "runtimeConfig")
"""Parts of a configuration that would change addresses or names, which are not this configuration's to say."""


@dataclass(frozen=True, slots=True)
class PodName:
    """The pod of a request: `namespace/name` and UID, from CNI_ARGS as kubelet's runtimes write them."""

    key: PodKey
    uid: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Parts that its command does not have are empty; `netns` is empty too for a DEL without namespace."""

    command: str
    attachment: Attachment = field(default_factory=lambda: Attachment("", ""))
    netns: str = ""
    pod: PodName | None = None
    previous: Mapping[str, Any] | None = None
    valid: frozenset[Attachment] | None = None


def read_request(data: bytes) -> Request:
    """The request in a message of the plugin. Raises CniError with the code of what is wrong with it."""
    try:
        message = json.loads(data)
    except ValueError as error:
        raise CniError(errors.DECODING_FAILURE, "the request is not JSON", str(error)) from error
    if not isinstance(message, dict) or not isinstance(message.get("config"), dict):
        raise CniError(errors.DECODING_FAILURE, "the request is no object with a configuration")
    command, config = message.get("command"), message["config"]
    if command not in COMMANDS:
        raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_COMMAND: {command!r} is unknown")
    if command == "STATUS":
        return Request(command)
    if command == "GC":
        return Request(command, valid=_valid_attachments(config))
    attachment = _attachment(message)
    netns = _text(message, "netns", "CNI_NETNS")
    if command == "DEL":
        return Request(command, attachment, netns)
    if not netns.startswith("/") or "/../" in f"{netns}/":
        raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_NETNS: {netns!r} is no absolute path")
    previous = message.get("prev_result")
    if command == "CHECK":
        if not isinstance(previous, dict):
            raise CniError(errors.INVALID_CONFIGURATION, "CHECK needs prevResult, the result of ADD")
        return Request(command, attachment, netns, previous=MappingProxyType(previous))
    _check_supported(config)
    pod = _pod(_text(message, "args", "CNI_ARGS"))
    return Request(command, attachment, netns, pod, MappingProxyType(previous) if isinstance(previous, dict) else None)


def _text(message: Mapping[str, Any], name: str, variable: str) -> str:
    text = message.get(name, "")
    if not isinstance(text, str):
        raise CniError(errors.INVALID_ENVIRONMENT, f"{variable} is no text")
    return text


def _attachment(message: Mapping[str, Any]) -> Attachment:
    container, ifname = _text(message, "container_id", "CNI_CONTAINERID"), _text(message, "ifname", "CNI_IFNAME")
    if not _CONTAINER.fullmatch(container):
        raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_CONTAINERID: {container!r} is no container id")
    if not _IFNAME.fullmatch(ifname) or ifname in (".", "..", "lo"):
        raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_IFNAME: {ifname!r} is no name for a device")
    return Attachment(container, ifname)


def _pod(args: str) -> PodName:
    """The pod in CNI_ARGS. Without a UID the port belongs to the pod that has the name."""
    given = dict(part.split("=", 1) for part in args.split(";") if "=" in part)
    namespace, name = given.get("K8S_POD_NAMESPACE", ""), given.get("K8S_POD_NAME", "")
    for variable, text in (("K8S_POD_NAMESPACE", namespace), ("K8S_POD_NAME", name)):
        if not _NAME.fullmatch(text):
            raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_ARGS: {variable} is {text!r}, which is no name")
    uid = given.get("K8S_POD_UID", "")
    if not _UID.fullmatch(uid):
        raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_ARGS: K8S_POD_UID is {uid!r}, which is no UID")
    return PodName(PodKey(f"{namespace}/{name}"), uid)


def _check_supported(config: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if config.get(name):
            raise CniError(
                errors.UNSUPPORTED_FIELD,
                f"field {name} of the network configuration is not supported: {json.dumps(config[name])}",
                "addresses come from the controller of romana-ovs",
            )


def _valid_attachments(config: Mapping[str, Any]) -> frozenset[Attachment]:
    """The attachments that a GC keeps. libcni writes null for none; a list that is missing must not count as empty."""
    listed = config.get(_VALID, "") if config.get(_VALID, "") is not None else []
    try:
        if not isinstance(listed, list):
            raise TypeError
        return frozenset(Attachment(str(each["containerID"]), str(each["ifname"])) for each in listed)
    except (KeyError, TypeError) as error:
        raise CniError(errors.INVALID_CONFIGURATION, f"{_VALID} is no list of attachments") from error
