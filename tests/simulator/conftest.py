"""What the tests against the vendors' SDKs share."""

from __future__ import annotations

import pytest


@pytest.fixture
def opened():
    """Clients of SDKs that are to be closed."""
    clients = []
    yield lambda client: clients.append(client) or client
    for client in clients:
        client.close()
