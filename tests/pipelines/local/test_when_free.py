"""A port that another process has for a while: waited for where that may be, refused where it may not."""

from __future__ import annotations

import pytest

from pipelines.local.listener import ListenFailed, PortTaken
from pipelines.local.when_free import TRY_EVERY, WhenFree
from tests.pipelines.local.test_lane import eventually
from tests.transforms.write.manual_clock import ManualClock


class Page:
    """What listens, and whether it was told to close."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Port:
    """Opens pages while it is free."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.pages: list[Page] = []

    def opened(self) -> Page:
        if self.failures:
            raise self.failures.pop(0)
        self.pages.append(Page())
        return self.pages[-1]


TAKEN = PortTaken("port 8787 is taken on 127.0.0.1")


def test_a_free_port_is_used_at_once() -> None:
    used: list[Page] = []
    page = WhenFree("--status_port=8787", Port().opened, ManualClock(), patient=True)
    page.then(used.append)
    assert page.server is not None
    assert used == [page.server]
    page.close()
    assert page.server.closed


def test_a_port_that_is_taken_is_refused_by_the_name_of_its_flag() -> None:
    with pytest.raises(PortTaken, match=r"--status_port=8787: port 8787 is taken .*: choose another port"):
        WhenFree("--status_port=8787", Port(TAKEN).opened, ManualClock(), patient=False)


def test_a_patient_one_has_it_when_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    clock, used = ManualClock(), list[Page]()
    port = Port(TAKEN, TAKEN, ListenFailed("no descriptors"))
    page = WhenFree("--status_port=8787", port.opened, clock, patient=True)
    assert page.server is None
    assert caplog.text.count("port 8787 is taken") == 1
    page.then(used.append)
    assert used == []

    def is_used() -> bool:
        clock.advance(TRY_EVERY)
        return bool(used)

    assert eventually(is_used)
    assert used == port.pages == [page.server]
    assert port.failures == []
    page.close()
    assert used[0].closed


def test_what_was_waited_for_in_vain_is_given_up_at_the_end() -> None:
    port = Port(TAKEN)
    page = WhenFree("--status_port=8787", port.opened, ManualClock(), patient=True)
    page.close()
    assert (page.server, port.pages) == (None, [])
