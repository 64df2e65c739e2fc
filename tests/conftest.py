"""What the whole suite shares: tests marked `own_network` run in a network of their own."""

from tests.servers.own_network import pytest_itemcollected, pytest_runtest_protocol

__all__ = ["pytest_itemcollected", "pytest_runtest_protocol"]
