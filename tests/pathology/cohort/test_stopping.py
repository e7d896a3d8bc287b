"""SIGTERM ends a run as Ctrl-C does, and only while it lasts."""

import os
import signal
import threading

import pytest

from pathology.cohort.stopping import sigterm_as_interrupt


@pytest.fixture
def told():
    """What a handler that was there before is told."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def test_sigterm_interrupts_once_and_what_was_before_comes_back(told):
    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # does not disturb the tidying up

    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        work()
    assert told == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert told == [signal.SIGTERM]


def test_in_another_thread_nothing_changes(told):
    def work():
        with sigterm_as_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [signal.SIGTERM]
