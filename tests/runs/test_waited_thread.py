"""Threads that are waited for again after Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from exactile.threads.waited_thread import WaitedThread


@pytest.fixture
def interrupts():
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def later(work) -> None:
    threading.Timer(0.2, work).start()


def test_a_thread_that_runs_is_waited_for_after_an_interrupt(interrupts):
    """A plain thread of Python 3.11 counts as ended then."""
    release = threading.Event()
    thread = WaitedThread(target=release.wait, daemon=True)
    thread.start()
    later(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        thread.join()
    assert thread.is_alive()
    thread.join(0.1)
    assert thread.is_alive()
    later(release.set)
    thread.join()
    assert release.is_set()
    assert not thread.is_alive()


def test_it_ends_with_an_error_as_others_do(monkeypatch):
    told: list[type] = []
    monkeypatch.setattr(threading, "excepthook", lambda error: told.append(error.exc_type))
    thread = WaitedThread(target=lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="before it is started"):
        thread.join()
    thread.start()
    thread.join()
    assert told == [ZeroDivisionError]
