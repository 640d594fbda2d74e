"""Signals that arrive while something must not be interrupted."""

import signal
import threading

import pytest
from dagster import DagsterExecutionInterruptedError

from monad_dagster.pipes import compat


def run_deferred(number, *steps):
    """Send a signal to this process twice inside a deferring block, then take the steps."""
    with compat.deferred_interrupts():
        signal.raise_signal(number)
        signal.raise_signal(number)
        for step in steps:
            step()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(number):
    """The block is carried out whole, and then the interruption is raised, once."""
    before = signal.getsignal(number)
    done = []
    with pytest.raises(DagsterExecutionInterruptedError):
        run_deferred(number, lambda: done.append("all of it"))
    assert done == ["all of it"]
    assert signal.getsignal(number) is before


def test_an_error_of_the_block_comes_first():
    """What went wrong inside is not hidden by a signal, and the handlers are back."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        run_deferred(signal.SIGTERM, lambda: 1 / 0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_a_signal_nothing_is_raised_and_the_handlers_are_back():
    """Inside the block a signal would be held back, after it the old handlers answer again."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with compat.deferred_interrupts():
        inside = [signal.getsignal(number) for number in numbers]
    assert [signal.getsignal(number) for number in numbers] == before
    assert not set(inside) & set(before)


def test_another_thread_changes_no_handler():
    """Signals are the main thread's: elsewhere the block just runs."""
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work():
        with compat.deferred_interrupts():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
