"""Parts of kept maps are read from scratch files ahead of the network, and written to them behind it."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import exactile.runs.ways
from exactile.errors import CancelledError, SinkError
from exactile.geometry import Span
from exactile.kept_maps.store import SETS, MapStore, part_bytes
from exactile.passes.planner import PassPlanner
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.map_parts import PartsMade, PartsRead
from exactile.planning import Wish
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.nothing import NoSink
from exactile.sources.array import ArraySource
from tests.passes.test_passes import deployed, image_of, small_tile
from tests.support.global_nets import chain

SIZE = (96, 96)
SOON_S = 20
"""Waits end long before, unless something hangs."""


@pytest.fixture
def network():
    return deployed(chain("instance_norm", times=3), SIZE)


@pytest.fixture
def run(network, tmp_path, monkeypatch):
    """A run of several tiles in each pass, all kept maps in files in ``tmp_path``."""
    monkeypatch.setattr(exactile.runs.ways, "KEPT_SHARES", (0.0,))
    wish = Wish(plan="tile", tile=small_tile(network.keeping.at(SIZE), SIZE))
    return Session(network, scratch=tmp_path).image_run(ArraySource(image_of(SIZE)), ArraySink(), wish)


def threads_of_runs() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("exactile-")]


def open_files(folder: Path) -> list[Path]:
    """Those in ``folder``, with names or without."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(each.readlink())
    return [path for path in found if path.is_relative_to(folder)]


@contextmanager
def nothing_left(folder):
    yield
    assert not threads_of_runs()
    assert not open_files(folder)
    assert not list(folder.iterdir())


def test_other_threads_than_that_of_the_network_read_and_write(run, tmp_path, monkeypatch):
    """And those that write never read: what they write is whole strips."""
    callers: dict[str, set[str]] = {"preadv": set(), "pwritev": set()}
    for name, threads in callers.items():
        transfer = getattr(os, name)

        def noted(*arguments, transfer=transfer, threads=threads):
            threads.add(threading.current_thread().name)
            assert open_files(tmp_path)
            return transfer(*arguments)

        monkeypatch.setattr(os, name, noted)
    with nothing_left(tmp_path):
        run.run()
    assert callers == {"preadv": {"exactile-read"}, "pwritev": {"exactile-write"}}


@pytest.mark.parametrize("name", ["preadv", "pwritev"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_disk_that_fails_fails_the_run(network, run, tmp_path, monkeypatch, name, share):
    """At the first call, in the middle and at the last; what is read ahead or written behind is not waited for."""
    transfer, calls = getattr(os, name), []

    def counted(*arguments):
        calls.append(arguments)
        return transfer(*arguments)

    with monkeypatch.context() as counting:
        counting.setattr(os, name, counted)
        Session(network, scratch=tmp_path).segment(run.source, ArraySink(), plan="tile", tile=run.wish.tile)
    left = [1 + round(share * (len(calls) - 1))]

    def failing(*arguments):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return transfer(*arguments)

    monkeypatch.setattr(os, name, failing)
    with nothing_left(tmp_path), pytest.raises(SinkError, match=os.strerror(errno.EIO)):
        run.run()
    assert left[0] <= 0


@pytest.mark.parametrize("name", ["preadv", "pwritev"])
def test_a_run_that_is_stopped_leaves_nothing(run, tmp_path, monkeypatch, name):
    """Stopped while a part is read or written."""
    transfer, calls = getattr(os, name), []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 9:
            run.cancellation.cancel(CancelledError("stopped"))
        return transfer(*arguments)

    monkeypatch.setattr(os, name, stopping)
    with nothing_left(tmp_path), pytest.raises(CancelledError, match="stopped"):
        run.run()
    assert len(calls) >= 9


def first_that_keeps(network):
    return next(level for level in network.keeping.at(SIZE).levels if level.model.writes)


@pytest.fixture
def store(network, tmp_path):
    """With the maps of the first pass that keeps any, and its plan."""
    level = first_that_keeps(network)
    planner = PassPlanner(level, budget_bytes=1 << 40, process_bytes=0)
    tile = small_tile(level.model, SIZE)
    plan = planner.choose(ArraySource(image_of(SIZE)), NoSink(), Wish(plan="tile", tile=tile)).plan
    store = MapStore(SIZE, memory_bytes=0, folder=tmp_path)
    store.open(level.model.writes)
    yield store, level.model.writes, plan
    store.close()


def test_two_sets_of_parts_are_read_ahead_and_no_more(store):
    """The third is read when the first was used; what the network has is never overwritten."""
    store, maps, plan = store
    cancellation, steps = Cancellation(), list(plan)
    for one in maps:
        kept = store._maps[one.output]
        whole = np.random.default_rng(0).normal(size=one.shape_at(SIZE)).astype(one.dtype)
        kept.write(*(Span(0, whole.shape[axis]) for axis in one.axes), whole)
    parts, alone = PartsRead(store, maps, cancellation), store.buffers()
    done = threading.Semaphore(0)

    def ahead() -> None:
        for step in steps[: SETS + 2]:
            parts.ahead(step.tile)
            done.release()

    thread = threading.Thread(target=ahead)
    thread.start()
    for _ in range(SETS):
        assert done.acquire(timeout=SOON_S)
    first = parts.take(steps[0].tile)
    assert not done.acquire(timeout=0.05)
    for index, step in enumerate(steps[: SETS + 2]):
        taken = first if index == 0 else parts.take(step.tile)
        for name, expected in store.read(maps, step.tile, alone).items():
            np.testing.assert_array_equal(taken[name], expected)
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_two_sets_of_parts_are_written_behind_and_no_more(store):
    """The network waits for the third, and no longer than until the run is stopped."""
    store, maps, plan = store
    cancellation, zone = Cancellation(), np.array([0, 1 << 40, 0, 1 << 40])
    made, tile = PartsMade(store, maps, cancellation), next(iter(plan)).tile
    held = [made.take(tile, zone) for _ in range(SETS)]
    assert not any(np.shares_memory(*pair) for pair in zip(*(one.arrays.values() for one in held), strict=True))
    failed = threading.Event()

    def waiting() -> None:
        made.take(tile, zone)  # when the first is written
        try:
            made.take(tile, zone)
        except CancelledError:
            failed.set()

    thread = threading.Thread(target=waiting)
    thread.start()
    held[0].write()
    assert not failed.wait(0.05)
    cancellation.cancel(CancelledError("stopped"))
    assert failed.wait(SOON_S)
    thread.join(SOON_S)


def test_memory_is_predicted_for_both_sets(network, store):
    """Of maps in files, and of those alone; a pass of one tile has one."""
    _, maps, plan = store
    once = sum(one.bytes_at(plan.tile_shape) for one in maps)
    assert part_bytes(maps, plan, ()) == once
    assert part_bytes(maps, plan, None) == part_bytes(maps, plan, {one.output for one in maps}) == 2 * once
    level, source = first_that_keeps(network), ArraySource(image_of(SIZE))
    needs = []
    for on_disk in ((), None):
        planner = PassPlanner(level, budget_bytes=1 << 40, process_bytes=0, on_disk=on_disk)
        needs.append(planner.memory_need(plan, source, NoSink()).needed_bytes)
        whole = planner.choose(source, NoSink(), Wish(plan="whole")).plan
        assert part_bytes(maps, whole, on_disk) == sum(one.bytes_at(SIZE) for one in maps)
    assert needs[1] - needs[0] == once


def test_no_pass_reads_what_it_writes(network):
    """So parts may be read ahead while others are written behind."""
    levels = network.keeping.at(SIZE).levels
    assert any(level.model.reads and level.model.writes for level in levels)
    for level in levels:
        assert not {one.output for one in level.model.reads} & {one.output for one in level.model.writes}
