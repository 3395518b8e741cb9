"""Tasks on a cluster: nearly in order, again where they fail, on another worker where one is slow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import distributed
import numpy as np
import pytest
import tifffile

from exactile.distributed import segment
from exactile.distributed.job import Batch
from exactile.distributed.tasks import AHEAD, MOST_TRIES, Tasks
from exactile.distributed.workers import MOST_FAILURES
from exactile.errors import CancelledError, ClusterError, PlanError
from tests.runs.test_blocks import files_of, model_of
from tests.runs.test_exactness import image_for
from tests.support import dask_cluster

pytestmark = dask_cluster.QUIET


@pytest.fixture(scope="module")
def client():
    with dask_cluster.cluster_of(2) as found:
        yield found


@pytest.fixture
def tasks(client, request):
    stop = threading.Event()
    return Tasks(client, Batch(key=f"{request.node.name}-{time.time_ns()}"), stop)


def doubled(_batch: Batch, factor: int, number: int) -> int:
    return factor * number


def slow_once(_batch: Batch, folder: Path, number: int) -> int:
    """The worker that takes number 3 first does not come back from it for long."""
    if number == 3:
        try:
            (folder / "taken").touch(exist_ok=False)
            time.sleep(25)
        except FileExistsError:
            pass
    return number


def failing(_batch: Batch, folder: Path, number: int, times: int, error: Exception) -> int:
    count = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{time.time_ns()}").touch()
    if count < times:
        raise error
    return number


def test_all_pieces_are_run_nearly_in_order(tasks):
    found = [(piece, result) for (piece,), result in tasks.run(doubled, 7, ((number,) for number in range(300)))]
    assert sorted(found) == [(number, 7 * number) for number in range(300)]
    places = np.array([piece for piece, _ in found])
    assert np.abs(places - np.arange(300)).max() <= 32


def test_pieces_are_taken_as_they_are_needed(tasks):
    """Not all listed at once, and never far from the first that is not done."""
    taken: list[int] = []

    def pieces():
        for number in range(1000):
            taken.append(number)
            yield (number,)

    for (piece,), _ in tasks.run(doubled, 1, pieces()):
        assert len(taken) <= piece + 64
        if piece > 50:
            break
    assert len(taken) < 150


def test_few_results_wait_where_they_are_large(tasks):
    found = [piece for (piece,), _ in tasks.run(doubled, 7, ((number,) for number in range(60)), ahead=2)]
    assert sorted(found) == list(range(60))
    assert np.abs(np.array(found) - np.arange(60)).max() <= 3


def test_a_slow_worker_is_not_waited_for(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("exactile.distributed.tasks.SLOW_S", 0.5)
    begin = time.monotonic()
    found = [result for _, result in tasks.run(slow_once, tmp_path, ((number,) for number in range(8)))]
    assert sorted(found) == list(range(8))
    assert time.monotonic() - begin < 20
    assert 1 <= tasks.again <= 2  # with it, what waits behind it
    tasks.end()


def test_what_may_succeed_elsewhere_is_tried_again(tasks, tmp_path):
    pieces = [(0, 2, ClusterError("the disk is full", True)), (1, 1, OSError("stalled")), (2, 0, ValueError())]
    assert sorted(result for _, result in tasks.run(failing, tmp_path, pieces)) == [0, 1, 2]
    assert tasks.again == 3


@pytest.mark.parametrize(
    ("error", "tries", "message"),
    [
        (ClusterError("another engine"), 1, "another engine"),
        (PlanError("no such tile"), 1, "no such tile"),
        (ClusterError("the disk is full", True), MOST_TRIES, "the disk is full"),
        (ValueError("what is this"), MOST_TRIES, "a worker failed: ValueError: what is this"),
    ],
)
def test_what_fails_ends_the_run(tasks, tmp_path, error, tries, message):
    with pytest.raises((ClusterError, PlanError), match=message):
        list(tasks.run(failing, tmp_path, [(0, 100, error)]))
    assert len(list(tmp_path.iterdir())) == tries
    tasks.cancel()


def test_pieces_that_fail_may_be_told(tasks, tmp_path):
    error = PlanError("no such tile")
    pieces = [(number, 100 if number == 1 else 0, error) for number in range(3)]
    found = {piece[0]: result for piece, result in tasks.run(failing, tmp_path, pieces, keep_going=True)}
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], PlanError)


def test_a_run_is_stopped_between_pieces(client):
    stop = threading.Event()
    tasks = Tasks(client, Batch(key=str(time.time_ns())), stop)
    run = tasks.run(doubled, 1, ((number,) for number in range(10_000)))
    assert next(run)[1] < 10
    stop.set()
    with pytest.raises(CancelledError):
        list(run)
    tasks.cancel()


def fails_here(_batch: Batch, shared: tuple[Path, str], number: int) -> tuple[int, str]:
    """On one worker, every time."""
    folder, bad = shared
    address = distributed.get_worker().address
    time.sleep(0.05)
    if address == bad:
        (folder / str(number)).touch()
        raise ClusterError(f"the disk of {address} is full", True, address)
    return number, address


def test_a_worker_on_which_pieces_fail_gets_no_more(client, tasks, tmp_path):
    """Its pieces are run elsewhere; after a few of them it is left out."""
    bad, good = client.scheduler_info()["workers"]
    found = [result for _, result in tasks.run(fails_here, (tmp_path, bad), ((number,) for number in range(60)))]
    assert sorted(found) == [(number, good) for number in range(60)]
    failed = len(list(tmp_path.iterdir()))
    assert failed == tasks.again
    assert MOST_FAILURES <= failed <= MOST_FAILURES + 2 * AHEAD


def test_where_pieces_fail_on_all_workers_the_run_ends(tasks, tmp_path):
    with pytest.raises(ClusterError, match="the disk is full"):
        list(
            tasks.run(
                failing, tmp_path, [(n, 100, ClusterError("the disk is full", True, "tcp://a")) for n in range(9)]
            )
        )
    tasks.cancel()


@pytest.mark.slow
def test_blocks_of_a_worker_that_stalls_are_taken_over(tmp_path, monkeypatch):
    """It is stopped, not killed: its connection stays open, and results that it has are not given."""
    monkeypatch.setattr("exactile.distributed.tasks.SLOW_S", 3.0)
    monkeypatch.setattr("exactile.distributed.workers.ALIVE_S", 2.0)
    monkeypatch.setattr("exactile.distributed.workers.LOOK_S", 1.0)
    monkeypatch.setattr("exactile.distributed.tasks.FETCH_S", 1.0)
    monkeypatch.setattr("exactile.distributed.tasks.SHARE_S", 2.0)
    monkeypatch.setattr("exactile.distributed.tasks.UNKNOWN_TIMES", 2)
    monkeypatch.setattr("exactile.sinks.tiled.sink.TILE_PX_LABELS", 64)
    tifffile.imwrite(
        tmp_path / "image.tif", image_for("unet_d2", 260, 230, largest=7), tile=(64, 64), photometric="rgb"
    )
    options = {"plan": "tile", "block": 64, "threads": 1, "memory_bytes": 4 << 30}
    stalled: list[int] = []

    def stall(done: int, _total: int) -> None:
        if done and not stalled:
            stalled.append(next(iter(client.run(os.getpid).values())))
            os.kill(stalled[0], signal.SIGSTOP)

    with dask_cluster.cluster_of(2) as client:
        model = model_of("unet_d2", "labels")
        segment(client, model, tmp_path / "image.tif", tmp_path / "alone.zarr", **options).result(120)
        run = segment(client, model, tmp_path / "image.tif", tmp_path / "labels.zarr", progress=stall, **options)
        try:
            summary = run.result(120)
        finally:
            os.kill(stalled[0], signal.SIGCONT)
        assert summary.again >= 1
        assert files_of(tmp_path / "labels.zarr") == files_of(tmp_path / "alone.zarr")


def test_after_the_scheduler_was_killed_a_run_is_resumed(client, tmp_path, monkeypatch):
    """What is done is kept; another cluster does the rest."""
    monkeypatch.setattr("exactile.sinks.tiled.sink.TILE_PX_LABELS", 64)
    tifffile.imwrite(
        tmp_path / "image.tif", image_for("unet_d2", 260, 230, largest=7), tile=(64, 64), photometric="rgb"
    )
    options = {"plan": "tile", "block": 64, "threads": 1, "memory_bytes": 4 << 30}
    model, target = model_of("unet_d2", "labels"), tmp_path / "labels.zarr"
    segment(client, model, tmp_path / "image.tif", tmp_path / "alone.zarr", **options).result(120)
    found = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
               "--no-dashboard", "--scheduler-file", str(found)]  # fmt: skip
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(found), "--nthreads", "1",
              "--memory-limit", "0", "--no-dashboard", "--no-nanny", "--death-timeout", "20"]  # fmt: skip
    with ExitStack() as stack:
        scheduler = stack.enter_context(process(command))
        stack.enter_context(process(worker))
        other = stack.enter_context(dask_cluster.distributed.Client(scheduler_file=str(found), timeout=60))

        def kill(done: int, _total: int) -> None:
            if done:
                scheduler.kill()

        run = segment(other, model, tmp_path / "image.tif", target, progress=kill, **options)
        with pytest.raises(ClusterError, match=r"scheduler|connection"):
            run.result(120)
        assert run.keeps
    summary = segment(client, model, tmp_path / "image.tif", target, resume=True, **options).result(120)
    assert 0 < summary.kept_pixels < 260 * 230
    assert files_of(target) == files_of(tmp_path / "alone.zarr")


@contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as found:
        try:
            yield found
        finally:
            found.kill()
