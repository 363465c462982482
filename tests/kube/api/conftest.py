"""Fixtures of every test of a client: a server that answers byte by byte as the test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A running server."""
    with scripted_server() as running:
        yield running
