"""What pickled copies of a DoFn find again in their process, and what happens in any other."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading

import pytest

from transforms import in_process
from transforms.in_process import NotHere, Ticket


def elsewhere(pickled: bytes) -> str:
    """What another process says to it."""
    program = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    ran = subprocess.run([sys.executable, "-c", program], input=pickled, capture_output=True, check=False)
    assert ran.returncode == 1
    return ran.stderr.decode().splitlines()[-1]


def test_whoever_unpickles_a_ticket_in_its_process_holds_the_same_live_object() -> None:
    live = threading.Lock()  # nothing that could be pickled
    ticket = Ticket(live)
    pickled = pickle.dumps(ticket)
    assert pickle.loads(pickled) is ticket
    assert pickle.loads(pickled).live is live
    assert copy.deepcopy(ticket) is ticket


def test_two_tickets_are_two_numbers() -> None:
    one, two = Ticket("one"), Ticket("two")
    assert [pickle.loads(pickle.dumps(each)).live for each in (two, one)] == ["two", "one"]


def test_the_pickle_holds_nothing_of_the_object() -> None:
    assert b"0123456789abcdef" not in pickle.dumps(Ticket("0123456789abcdef"))


@pytest.mark.slow
def test_in_another_process_it_says_where_it_belongs() -> None:
    said = elsewhere(pickle.dumps(Ticket(threading.Event())))
    assert said == (
        "transforms.in_process.NotHere: this Event works only in the process that made it, and as long as "
        "that runs it"
    )


@pytest.mark.slow
def test_another_error_than_the_usual_one_travels_with_it() -> None:
    assert elsewhere(pickle.dumps(Ticket("x", ValueError("give env:NAME")))) == "ValueError: give env:NAME"


def test_a_void_ticket_is_refused_wherever_it_is_shown() -> None:
    ticket = Ticket(threading.Event())
    pickled = pickle.dumps(ticket)
    ticket.void()
    ticket.void()
    with pytest.raises(NotHere, match="this Event works only"):
        pickle.loads(pickled)
    with pytest.raises(NotHere):
        _ = ticket.live


def test_what_is_shared_is_made_by_its_first_user_and_closed_by_its_last() -> None:
    made = [in_process.acquire("key", threading.Event) for _ in range(3)]
    assert made[0] is made[1] is made[2]
    assert in_process.acquire("other", threading.Event) is not made[0]
    assert [in_process.release("key") for _ in range(3)] == [False, False, True]
    assert in_process.release("other")
    assert in_process.acquire("key", threading.Event) is not made[0]
    assert in_process.release("key")


def test_what_cannot_be_made_is_nobody_s() -> None:
    with pytest.raises(ZeroDivisionError):
        in_process.acquire("key", lambda: 1 // 0)
    assert in_process.acquire("key", lambda: 1) == 1
    assert in_process.release("key")
