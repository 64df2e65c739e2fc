"""Programs of ours in this process trust the usual authorities, whatever this machine's environment says."""

from __future__ import annotations

import pytest

from tests.servers.tiers import starts_servers


@pytest.fixture(autouse=True)
def _usual_authorities(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program reads all of SSL_CERT_FILE at its start, 15 ms each time. What fetches a server keeps it."""
    if not starts_servers(request.node):
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
