"""Reads and removes the files of DELs that nobody could do at once; the plugin writes them while the agent is away."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from romana_ovs.attach.attachment import Attachment
from romana_ovs.attach.errors import CniError
from romana_ovs.attach.requests import read_request
from romana_ovs.model.errors import SetupError

LOG = logging.getLogger("romana_ovs.attach")


class DeleteQueue:
    """The files in `folder`, one for each attachment, named as the plugin names them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self) -> None:
        """Make the folder if it is missing. Raises SetupError."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"the folder of queued DELs {self._folder}: {error.strerror}") from error

    def put(self, attachment: Attachment) -> None:
        """Queue a DEL. Raises OSError."""
        message = {"command": "DEL", "container_id": attachment.container, "ifname": attachment.ifname, "config": {}}
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".new-", delete=False) as file:
            json.dump(message, file)
        os.rename(file.name, self._path(attachment))

    def discard(self, attachment: Attachment) -> None:
        """Forget the DEL of an attachment, if there is one."""
        self._path(attachment).unlink(missing_ok=True)

    def attachments(self) -> Iterator[Attachment]:
        """The attachments with a queued DEL. A file that is none is logged and removed."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                request = read_request(path.read_bytes())
            except FileNotFoundError:
                continue
            except (CniError, OSError) as error:
                LOG.warning("%s is no queued DEL and is removed: %s", path, error)
                path.unlink(missing_ok=True)
                continue
            yield request.attachment

    def _path(self, attachment: Attachment) -> Path:
        text = f"{attachment.container}/{attachment.ifname}"
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
