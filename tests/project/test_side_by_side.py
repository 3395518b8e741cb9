"""Small images side by side: each with an engine and a share of the threads; the bits of one after the other."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest
import tifffile

from exactile.contract.graph_hash import graph_hash
from exactile.engines import lease
from exactile.errors import OptionError
from exactile.planning import Wish
from exactile.runs.batch import run_all, worth_side_by_side
from exactile.runs.image_run import ImageRun, Watcher
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from tests.plan.test_lanes import deployed
from tests.runs.test_exactness import image_for
from tests.support.command import exactile as command
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.oracle import whole_pass

SIZES = [(145, 131), (145, 131), (97, 160), (97, 160), (145, 131), (64, 64)]


class Watched:
    """Runs images, and notes how many inferences go on at once, and by how many threads each engine computes.

    With ``together`` each inference waits until so many go on.
    """

    def __init__(self, monkeypatch, session: Session, together: int = 1) -> None:
        self.session = session
        self.now, self.most, self.threads = 0, 0, []
        self.runs: dict[int, ImageRun] = {}
        self._lock, self._together = threading.Lock(), threading.Barrier(together, timeout=20)
        original = lease.open_engine

        def watched(*arguments, **options):
            engine = original(*arguments, **options)
            infer = engine.infer
            self.threads.append(options["threads"])

            def noted(*step):
                with self._lock:
                    self.now += 1
                    self.most = max(self.most, self.now)
                try:
                    self._together.wait()
                    time.sleep(0.01)
                    return infer(*step)
                finally:
                    with self._lock:
                        self.now -= 1

            engine.infer = noted
            return engine

        monkeypatch.setattr(lease, "open_engine", watched)

    def run(self, images: Sequence[np.ndarray], wish: Wish | None = None, sinks=None):
        sinks = sinks or [ArraySink() for _ in images]

        def prepare(number, read):
            made = self.session.image_run(
                ArraySource(images[number]), sinks[number], wish or Wish(), watcher=Watcher(read=read)
            )
            self.runs[number] = made
            return made

        outcomes = list(run_all(range(len(images)), prepare))
        assert [outcome.name for outcome in outcomes] == list(range(len(images)))
        return outcomes, sinks


def session_of(**options) -> Session:
    return Session(deployed("unet_d2"), **{"memory_bytes": 8 << 30, "threads": 4, "keep_engine": True, **options})


def expected(image: np.ndarray) -> np.ndarray:
    return whole_pass(onnx_bytes("unet_d2", weights="integer"), image, deployed("unet_d2").contract.geometry)


def images_of(sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    return [image_for("unet_d2", *size, largest=7) + np.uint8(number % 2) for number, size in enumerate(sizes)]


def test_images_of_one_tile_are_computed_at_the_same_time(monkeypatch):
    """Each inference waits until another one goes on: one after the other, the first would fail."""
    with closing(session_of(images=2)) as session:
        watched, images = Watched(monkeypatch, session, together=2), images_of([(145, 131)] * 6)
        outcomes, sinks = watched.run(images)
        assert [outcome.error for outcome in outcomes] == [None] * 6
        assert (watched.most, watched.threads) == (2, [2, 2])
        for image, sink in zip(images, sinks, strict=True):
            assert np.array_equal(sink.result, expected(image))


@pytest.mark.parametrize("images", [1, 2, 3])
def test_images_of_all_sizes_have_the_bits_of_plain_onnx_runtime(monkeypatch, images):
    """Those that need more activations than the first wait until no other is computed; so do those of several tiles."""
    with closing(session_of(images=images)) as session:
        watched, given = Watched(monkeypatch, session), images_of(SIZES)
        outcomes, sinks = watched.run(given)
        assert [outcome.error for outcome in outcomes] == [None] * len(given)
        assert watched.most <= images
        for image, sink in zip(given, sinks, strict=True):
            assert np.array_equal(sink.result, expected(image))
        outcomes, sinks = watched.run(given, Wish(plan="tile", tile=(96, 96)))
        tiles = [outcome.summary.tiles for outcome in outcomes]
        assert max(tiles) > 1
        assert [watched.runs[number].beside for number, count in enumerate(tiles) if count > 1] == [1] * sum(
            count > 1 for count in tiles
        )
        for image, sink in zip(given, sinks, strict=True):
            assert np.array_equal(sink.result, expected(image))


def test_as_many_as_fit_the_memory(monkeypatch):
    """Predicted memory is that of all images that are computed at the same time."""
    image, process_bytes = images_of([(512, 512)])[0], 200 << 20
    monkeypatch.setattr("exactile.runs.opened_model.settled_resident_bytes", lambda: process_bytes)
    needed = []
    for images in (1, 2, 4):
        with closing(session_of(images=images)) as session:
            watched = Watched(monkeypatch, session)
            outcomes, _ = watched.run([image])
            assert watched.runs[0].beside == images
            needed.append(outcomes[0].summary.predicted_memory_bytes - process_bytes)
    each = (needed[2] - needed[1]) / 2
    assert each > 10 << 20
    assert needed[1] - needed[0] == pytest.approx(each, rel=0.2)
    budget = process_bytes + needed[0] + int(2.5 * each)
    with closing(session_of(images=4, memory_bytes=budget)) as session:
        watched = Watched(monkeypatch, session)
        watched.run([image])
        assert watched.runs[0].beside in {2, 3}


def test_not_more_than_threads(monkeypatch):
    with closing(session_of(images=8, threads=3)) as session:
        watched = Watched(monkeypatch, session)
        watched.run(images_of([(64, 64)] * 4))
        assert watched.runs[3].beside == 3
        assert set(watched.threads) == {1}
    with pytest.raises(OptionError, match="at least one image is needed, got 0"):
        session_of(images=0)


class FailingSink(ArraySink):
    def write(self, box, block) -> None:
        raise OSError("the disk is gone")


def test_an_image_that_fails_does_not_touch_those_beside_it(monkeypatch):
    with closing(session_of(images=2)) as session:
        watched, images = Watched(monkeypatch, session), images_of([(145, 131)] * 5)
        sinks = [FailingSink() if number == 1 else ArraySink() for number in range(5)]
        outcomes, _ = watched.run(images, sinks=sinks)
        assert [outcome.error is None for outcome in outcomes] == [True, False, True, True, True]
        for number in (0, 2, 3, 4):
            assert np.array_equal(sinks[number].result, expected(images[number]))
        assert all(not thread.name.startswith("exactile-") for thread in threading.enumerate())


def test_many_files_by_the_command_line(tmp_path):
    """More than are under way at a time, of two sizes; each with its record."""
    (tmp_path / "in").mkdir()
    images = {f"{number:02d}": image for number, image in enumerate(images_of([(80, 96)] * 15 + [(64, 64)] * 7))}
    for name, image in images.items():
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", image, photometric="rgb")
    model, out = onnx_file(tmp_path, "unet_d2"), tmp_path / "out"
    done = command("run", model, tmp_path / "in", "-o", out, "--threads", "2", "--memory", "2GiB")
    assert done.returncode == 0, done.stderr
    for name, image in images.items():
        scores = whole_pass(onnx_bytes("unet_d2"), image, deployed("unet_d2").contract.geometry)
        assert np.array_equal(tifffile.imread(out / f"{name}.tif"), scores.argmax(0))
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{name}.tif{end}" for name in images for end in ("", ".json")
    )


def test_a_model_is_hashed_once(monkeypatch):
    model = deployed("unet_d2", "labels")
    first = graph_hash(model)
    monkeypatch.setattr("exactile.contract.graph_hash.hashlib", None)
    assert graph_hash(model) == first


def test_images_of_other_sizes_run_beside_each_other_where_none_is_larger_than_the_first(monkeypatch):
    with closing(session_of(images=2)) as session:
        session.image_run(ArraySource(images_of([(176, 176)])[0]), ArraySink(), Wish()).run()
        watched = Watched(monkeypatch, session, together=2)
        images = images_of([(145, 131), (64, 64), (97, 160), (145, 131)])
        outcomes, sinks = watched.run(images)
        assert [outcome.error for outcome in outcomes] == [None] * 4
        for image, sink in zip(images, sinks, strict=True):
            assert np.array_equal(sink.result, expected(image))


def test_larger_images_wait_until_no_other_is_computed(monkeypatch):
    """The region of the arena grows only while nothing is in it. Engines that others left open hold a larger one."""
    gc.collect()
    with closing(session_of(images=2)) as session:
        watched, images = Watched(monkeypatch, session), images_of([(64, 64), (128, 128), (256, 256), (320, 320)])
        outcomes, sinks = watched.run(images)
        assert [outcome.error for outcome in outcomes] == [None] * 4
        assert watched.most == 1
        for image, sink in zip(images, sinks, strict=True):
            assert np.array_equal(sink.result, expected(image))


def test_images_whose_maps_are_large_are_computed_one_after_the_other(monkeypatch):
    monkeypatch.setattr("exactile.planning.planner.LARGE_BYTES", 20 << 20)
    with closing(session_of(images=2)) as session:
        watched = Watched(monkeypatch, session)
        watched.run(images_of([(64, 64), (400, 400)]))
        assert [watched.runs[number].beside for number in (0, 1)] == [2, 1]


@pytest.mark.parametrize(("images", "beside"), [(1, 1), (19, 1), (20, 2), (39, 3), (40, 4), (1000, 4)])
def test_how_many_are_worth_it(images, beside):
    assert worth_side_by_side(images) == beside
