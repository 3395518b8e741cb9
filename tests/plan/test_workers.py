"""Threads that do what they are given: results, errors, the end of it."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from exactile.threads.workers import Task, Workers


def alive(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_results_and_errors_come_to_who_waits():
    workers = Workers(3, "these")
    tasks = [workers.submit(lambda number=number: 12 // number) for number in (1, 0, 4)]
    assert tasks[0].result() == 12
    with pytest.raises(ZeroDivisionError):
        tasks[1].result()
    assert tasks[2].result() == tasks[2].result() == 3
    assert all(task.done for task in tasks)
    workers.close()
    assert alive("these") == 0


def test_no_more_threads_than_asked_for_and_none_before_there_is_work():
    workers = Workers(2, "two")
    assert alive("two") == 0
    together = threading.Barrier(3)
    tasks = [workers.submit(lambda: together.wait(10)) for _ in range(2)]
    together.wait(10)
    assert {task.result() for task in tasks} <= {0, 1, 2}
    [workers.submit(int).result() for _ in range(5)]
    assert alive("two") == 2
    workers.close()


def test_what_waits_is_done_before_the_end_or_dropped():
    for drop in (False, True):
        workers, begun, go = Workers(1, "one"), threading.Event(), threading.Event()
        first = workers.submit(lambda begun=begun, go=go: (begun.set(), go.wait(10)))
        rest = [workers.submit(int) for _ in range(3)]
        begun.wait(10)
        threading.Timer(0.05, go.set).start()
        workers.close(drop=drop)
        assert first.done
        assert [task.done for task in rest] == [not drop] * 3
        workers.close()


def test_after_the_end_nothing_is_begun():
    workers = Workers(1, "gone")
    workers.close()
    with pytest.raises(RuntimeError, match="threads gone were closed"):
        workers.submit(int)
    task = Task(int)
    assert not workers.begin(task)
    assert not task.done
    assert alive("gone") == 0


def test_threads_end_with_the_last_reference():
    workers = Workers(2, "forgotten")
    for _ in range(2):
        workers.submit(int).result()
    del workers
    gc.collect()
    deadline = time.monotonic() + 10
    while alive("forgotten") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive("forgotten") == 0


def test_a_task_lets_go_of_its_work():
    """What waits for delivery must not hold the pixels that were compressed."""

    class Work:
        def __call__(self) -> int:
            return 7

    class Watched(Work):
        gone = False

        def __del__(self) -> None:
            Watched.gone = True

    workers = Workers(1, "holder")
    task = workers.submit(Watched())
    assert task.result() == 7
    workers.close()
    assert Watched.gone
