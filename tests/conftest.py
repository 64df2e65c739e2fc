"""What the whole suite shares: real servers, and a network of their own for tests marked `own_network`."""

from tests.servers.own_network import pytest_itemcollected, pytest_runtest_protocol
from tests.servers.shared import broker, emulator, seaweedfs

__all__ = ["broker", "emulator", "pytest_itemcollected", "pytest_runtest_protocol", "seaweedfs"]
