"""Many images: one engine, the next one read meanwhile, a failure alone, a record beside each result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import onnx
import pytest
import tifffile

from exactile.engines import lease
from exactile.planning import Wish
from exactile.runs.batch import run_all
from exactile.runs.image_run import Watcher
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile as command
from tests.support.nets import onnx_bytes, onnx_file


def pixels(seed: int, height: int = 200, width: int = 170) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three images, the second of them broken, and a text."""
    (tmp_path / "in").mkdir()
    for number in (1, 3):
        tifffile.imwrite(tmp_path / "in" / f"{number}.tif", pixels(number), photometric="rgb")
    (tmp_path / "in" / "2.tif").write_bytes((tmp_path / "in" / "1.tif").read_bytes()[:5000])
    (tmp_path / "in" / "notes.txt").write_text("none")
    return tmp_path / "in"


def run(*arguments):
    done = command("run", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_a_folder_of_images_one_of_them_broken(folder, tmp_path):
    model, out = onnx_file(tmp_path, "unet_d2"), tmp_path / "out"
    status, told, errors = run(model, folder, "-o", out, "--tile", "64")
    assert status == 2
    assert "1 of 3 images failed" in errors
    assert "2.tif" in errors
    assert "truncated" in errors
    assert told.count("Mpx/s") == 2
    assert sorted(path.name for path in out.iterdir()) == ["1.tif", "1.tif.json", "3.tif", "3.tif.json"]
    for number in (1, 3):
        alone = tmp_path / f"alone{number}.tif"
        assert run(model, folder / f"{number}.tif", "-o", alone, "--tile", "64")[0] == 0
        assert alone.read_bytes() == (out / f"{number}.tif").read_bytes()
        record = json.loads((out / f"{number}.tif.json").read_text())
        assert record["run"]["asked"]["tile"] == [64, 64]
        assert record["versions"]["onnxruntime"]
        assert record["summary"]["tiles"] > 1


def test_again_with_resume_leaves_what_is_complete_and_refuses_what_another_run_made(folder, tmp_path):
    model, out = onnx_file(tmp_path, "unet_d2"), tmp_path / "out"
    (folder / "2.tif").unlink()
    assert run(model, folder, "-o", out, "--format", "ome.tif")[0] == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    status, told, _ = run(model, folder, "-o", out, "--format", "ome.tif", "--resume")
    assert (status, told.count("was complete")) == (0, 2)
    status, _, errors = run(model, folder, "-o", out, "--format", "ome.tif", "--resume", "--border", "reflect")
    assert status == 2
    assert "asked.border: was model, is reflect" in errors
    status, _, errors = run(model, folder, "-o", out, "--format", "ome.tif")
    assert (status, errors.count("exists already")) == (2, 2)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    status, told, _ = run(model, folder, "-o", out, "--format", "ome.tif", "--overwrite", "--json")
    assert status == 0
    assert [entry["tiles"] for entry in json.loads(told)] == [1, 1]


def test_a_result_whose_record_was_lost_with_the_process_is_complete_and_an_old_one_is_not(folder, tmp_path):
    model, out = onnx_file(tmp_path, "unet_d2"), tmp_path / "out"
    (folder / "2.tif").unlink()
    (folder / "3.tif").unlink()
    assert run(model, folder, "-o", out, "--tile", "64")[0] == 0
    (out / "1.tif.json").rename(out / ".1.tif.json.pending")
    status, told, _ = run(model, folder, "-o", out, "--tile", "64", "--resume")
    assert (status, told.count("was complete")) == (0, 1)
    (out / ".1.tif.json.pending").unlink()
    status, _, errors = run(model, folder, "-o", out, "--tile", "64", "--resume")
    assert status == 2
    assert "nothing beside it says what made it" in errors


def test_two_images_of_one_name_are_refused_before_anything_runs(folder, tmp_path):
    np.save(folder / "1.npy", pixels(5))
    status, _, errors = run(onnx_file(tmp_path, "unet_d2"), folder, "-o", tmp_path / "out")
    assert status == 2
    assert "would both become" in errors
    assert not (tmp_path / "out").exists()


def test_images_of_several_types_and_a_missing_one(folder, tmp_path):
    model = onnx_file(tmp_path, "unet_d2")
    np.save(folder / "float.npy", pixels(5).astype(np.float32))
    status, _, errors = run(model, folder / "1.tif", folder / "float.npy", folder / "3.tif", "-o", tmp_path / "out")
    assert (status, errors) == (0, "")
    status, _, errors = run(model, folder / "1.tif", folder / "gone.tif", "-o", tmp_path / "out2")
    assert status == 2
    assert "gone.tif" in errors
    assert not (tmp_path / "out2").exists()


def test_stopping_keeps_what_is_complete(folder, tmp_path):
    model, out = onnx_file(tmp_path, "unet_d2"), tmp_path / "out"
    (folder / "2.tif").unlink()
    np.save(folder / "9.npy", pixels(9, 4000, 4000))
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    arguments = [sys.executable, "-m", "exactile", "run", str(model), str(folder), "-o", str(out), "--tile", "64"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)  # noqa: PLW1509
    deadline = time.monotonic() + 60
    while not (out / ".9.tif.journal").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert (out / "1.tif").exists()
    assert not (out / "9.tif").exists()
    assert (out / ".9.tif.journal").exists()


class SlowSource(ArraySource):
    """Tells when it is read."""

    def __init__(self, array, name, events) -> None:
        super().__init__(array)
        self._name, self._events = name, events

    def read(self, box, out) -> None:
        self._events.append(("read", self._name))
        super().read(box, out)


@pytest.fixture
def session(monkeypatch):
    """A session, with the engines that it opens and the tiles that they run noted."""
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
    events, opened = [], []
    original = lease.open_engine

    def noting(*arguments, **options):
        engine = original(*arguments, **options)
        opened.append(engine)
        run_tile = engine.infer

        def infer(*args):
            time.sleep(0.02)
            events.append(("infer", None))
            return run_tile(*args)

        engine.infer = infer
        return engine

    monkeypatch.setattr(lease, "open_engine", noting)
    session = Session(deploy(network, image_dtype="uint8"), memory_bytes=8 << 30, keep_engine=True)
    session.events, session.opened = events, opened
    yield session
    session.close()


def test_one_engine_and_the_next_image_is_read_while_this_one_is_computed(session):
    images = {name: pixels(seed) for seed, name in enumerate("abc")}
    sinks = {name: ArraySink() for name in images}

    def prepare(name, read):
        source = SlowSource(images[name], name, session.events)
        return session.image_run(
            source, sinks[name], Wish(plan="tile", tile=(64, 64), lanes=1), watcher=Watcher(read=read)
        )

    outcomes = list(run_all("abc", prepare))
    assert [(outcome.name, outcome.error) for outcome in outcomes] == [("a", None), ("b", None), ("c", None)]
    assert len(session.opened) == 1
    first_read = session.events.index(("read", "b"))
    tiles = outcomes[0].summary.tiles
    assert session.events[:first_read].count(("infer", None)) < tiles
    for name, image in images.items():
        alone = ArraySink()
        session.segment(ArraySource(image), alone, plan="whole")
        np.testing.assert_array_equal(sinks[name].result, alone.result)


def test_a_failure_in_one_does_not_touch_the_others(session):
    def prepare(name, read):
        if name == 1:
            raise ValueError("broken")
        return session.image_run(ArraySource(pixels(name)), ArraySink(), Wish(), watcher=Watcher(read=read))

    outcomes = list(run_all(range(4), prepare))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, True]
    assert all(not thread.name.startswith("exactile-") for thread in threading.enumerate())


class LateFailingSink(ArraySink):
    """Fails with the last box, when the engine computes the next image already."""

    def __init__(self, boxes, events) -> None:
        super().__init__()
        self._left, self._events = boxes, events

    def write(self, box, block) -> None:
        self._left -= 1
        if self._left == 0:
            before = len(self._events)
            deadline = time.monotonic() + 20
            while len(self._events) < before + 12 and time.monotonic() < deadline:
                time.sleep(0.01)
            raise OSError("the disk is gone")
        super().write(box, block)


def test_an_image_that_fails_when_the_next_one_is_computed_does_not_stop_it(session):
    tiles = len(session.plan(ArraySource(pixels(0)), ArraySink(), plan="tile", tile=(64, 64)).plan)
    sinks = {0: LateFailingSink(tiles, session.events), 1: ArraySink()}

    def prepare(name, read):
        wish = Wish(plan="tile", tile=(64, 64))
        return session.image_run(ArraySource(pixels(name)), sinks[name], wish, watcher=Watcher(read=read))

    outcomes = list(run_all([0, 1], prepare))
    assert "disk is gone" in str(outcomes[0].error)
    assert outcomes[1].error is None
    assert sinks[1].result.shape == (200, 170)


def test_closing_early_stops_what_is_under_way(session):
    def prepare(name, read):
        return session.image_run(
            ArraySource(pixels(name, 2000, 2000)), ArraySink(), Wish(plan="tile", tile=(64, 64)),
            watcher=Watcher(read=read),
        )  # fmt: skip

    outcomes = run_all([1, 2, 3], prepare)
    starter = threading.Thread(target=lambda: next(outcomes, None))
    starter.start()
    begin = time.monotonic()
    while ("infer", None) not in session.events and time.monotonic() - begin < 30:
        time.sleep(0.01)
    assert starter.is_alive()  # the first image is long
    begin = time.monotonic()
    session._processor.lease._engines[0][1].cancel()
    starter.join(30)
    assert time.monotonic() - begin < 20
    outcomes.close()
    assert all(not thread.name.startswith("exactile-") for thread in threading.enumerate())
