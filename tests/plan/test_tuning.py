"""Tuning: tiles and strips timed beforehand on a machine, and plans chosen by it there, and only there."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import tifffile

from exactile.bundle.opening import open_bundle
from exactile.contract.tuning import TunedShape, Tuning
from exactile.errors import BundleError, OptionError
from exactile.machine.memory import settled_resident_bytes
from exactile.machine_speed.machine_name import machine_name
from exactile.plan.speed import Speed
from exactile.plan.strips import StripPlan
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.tuning import measure
from exactile.tuning.tuning_file import TUNING_NAME, read_tuning, write_tuning
from tests.plan.test_lanes import deployed
from tests.runs.test_exactness import image_for
from tests.support import whole_nets
from tests.support.command import exactile as command
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.oracle import whole_pass

MIB = 1 << 20


def shape_of(kind="tile", lanes=1, mib=100, seconds=1e-7) -> TunedShape:
    return TunedShape(kind=kind, shape=(256, 256), lanes=lanes, activation_bytes=mib * MIB, seconds_per_pixel=seconds)


def tuning_of(*shapes: TunedShape, machine: str | None = None, threads: int = 2) -> Tuning:
    return Tuning(belongs_to="0" * 64, machine=machine or machine_name(), threads=threads, shapes=shapes)


def session_of(tuning: Tuning | None, **options) -> Session:
    model = replace(deployed("unet_d2"), tuning=tuning)
    return Session(model, **{"memory_bytes": 8 << 30, "threads": 2, "device": "cpu", **options})


def choice_of(tuning: Tuning | None, px: int = 600, **options):
    with closing(session_of(tuning, **options)) as session:
        return session.plan(ArraySource(image_for("unet_d2", px, px)), ArraySink())


def test_times_follow_what_was_measured_and_rules_in_its_unit_elsewhere():
    speed = Speed(
        threads=2,
        points=(
            shape_of(mib=64, seconds=2e-7),
            shape_of(mib=256, seconds=4e-7),
            shape_of("strip", mib=64, seconds=8e-7),
        ),
    )
    found = speed.of("tile", 1, np.array([1, 64, 128, 256, 4096]) * MIB)
    assert found == pytest.approx([1, 1, 1.5, 2, 2 * 1.18])
    assert speed.of("strip", 1, 4096 * MIB) == pytest.approx(4 * 1.18)
    assert speed.least("tile", 1) == pytest.approx(1)
    usual = Speed(threads=2)
    others = [speed.of("tile", 2, size * MIB) / usual.of("tile", 2, size * MIB) for size in (1, 64, 4096)]
    assert others == pytest.approx([2, 2, 2])  # the median of 1, 2 and 4


@pytest.mark.parametrize("faster", ["tile", "strip"])
def test_the_kind_of_plan_that_was_measured_to_be_faster_is_taken(faster):
    slower = {"tile": "strip", "strip": "tile"}[faster]
    chosen = choice_of(tuning_of(shape_of(faster), shape_of(slower, seconds=3e-7)))
    assert isinstance(chosen.plan, StripPlan) == (faster == "strip")
    assert "by what was tuned on this machine" in chosen.reason


def test_tiles_are_as_large_as_was_measured_to_be_fast():
    small = tuning_of(shape_of(mib=4), shape_of(mib=64, seconds=9e-7), shape_of("strip", seconds=9e-7))
    large = tuning_of(shape_of(mib=4, seconds=9e-7), shape_of(mib=64), shape_of("strip", seconds=9e-7))
    few, many = choice_of(large).plan, choice_of(small).plan
    assert not isinstance(few, StripPlan)
    assert not isinstance(many, StripPlan)
    assert few.tile_shape[0] * few.tile_shape[1] > 4 * many.tile_shape[0] * many.tile_shape[1]


def test_lanes_are_those_that_were_measured_to_be_fast():
    strips = [shape_of("strip", lanes, seconds=9e-7) for lanes in (1, 2)]
    one = tuning_of(shape_of(lanes=1, seconds=1e-7), shape_of(lanes=2, seconds=2e-7), *strips)
    two = tuning_of(shape_of(lanes=1, seconds=2e-7), shape_of(lanes=2, seconds=1e-7), *strips)
    assert [choice_of(tuning).plan.lanes for tuning in (one, two)] == [1, 2]


def test_elsewhere_the_rules_hold():
    """On another processor, with other threads, or where nothing was measured."""
    usual = choice_of(None)
    by_rules = isinstance(usual.plan, StripPlan)
    faster, slower = ("tile", "strip") if by_rules else ("strip", "tile")
    shapes = [shape_of(faster), shape_of(slower, seconds=9e-7)]
    assert isinstance(choice_of(tuning_of(*shapes)).plan, StripPlan) != by_rules
    for other in (tuning_of(*shapes, machine="another"), tuning_of(*shapes, threads=3)):
        assert choice_of(other) == usual


def test_the_result_is_one_pass_whatever_was_measured():
    image = image_for("unet_d2", 333, 217, largest=7)
    expected = whole_pass(onnx_bytes("unet_d2", weights="integer"), image, deployed("unet_d2").contract.geometry)
    for fast in ("tile", "strip"):
        shapes = [shape_of(kind, mib=mib, seconds=1e-7 if (kind, mib) == (fast, 1) else 9e-7)
                  for kind in ("tile", "strip") for mib in (1, 64)]  # fmt: skip
        with closing(session_of(tuning_of(*shapes))) as session:
            sink = ArraySink()
            summary = session.segment(ArraySource(image), sink)
            assert summary.tiles > 1
            assert np.array_equal(sink.result, expected)


def test_shapes_are_measured_in_every_number_of_lanes(monkeypatch):
    monkeypatch.setattr(measure, "TILES_PX", (64, 101))
    monkeypatch.setattr(measure, "STRIPS_PX", ((32, 128),))
    told: list[tuple[int, int]] = []
    with closing(session_of(None)) as session:
        found = session.tune(progress=lambda done, total: told.append((done, total)))
    assert [(one.kind, one.shape, one.lanes) for one in found.shapes] == [
        (kind, shape, lanes)
        for kind, shape in (("tile", (64, 64)), ("strip", (32, 128)), ("tile", (104, 104)))
        for lanes in (1, 2)
    ]
    assert all(1e-10 < one.seconds_per_pixel < 1e-3 for one in found.shapes)
    assert told == [(done, 6) for done in range(7)]
    assert (found.machine, found.threads) == (machine_name(), 2)
    one, two = (shape.activation_bytes for shape in found.shapes[:2])
    assert two == 2 * one


def test_what_takes_too_much_memory_is_left_out(monkeypatch):
    monkeypatch.setattr(measure, "TILES_PX", (64, 128, 4096))
    monkeypatch.setattr(measure, "STRIPS_PX", ())
    limited = settled_resident_bytes() + (500 << 20)  # by what this process holds: torch, in some workers
    with closing(session_of(None, memory_bytes=limited, threads=1)) as session:
        assert [one.shape for one in session.tune(seconds=600).shapes] == [(64, 64), (128, 128)]
        with pytest.raises(OptionError, match="in 0 s no tile was measured"):
            session.tune(seconds=0)


def test_networks_that_take_statistics_of_the_whole_image_are_not_tuned(tmp_path):
    (tmp_path / "net.onnx").write_bytes(whole_nets.instance_norm())
    made = command("convert", tmp_path / "net.onnx", "-o", tmp_path / "net.bundle", "--no-verify")
    assert made.returncode == 0, made.stderr
    done = command("tune", tmp_path / "net.bundle")
    assert done.returncode == OptionError.exit_status
    assert "tuning is for runs on a CPU, of networks that can be tiled" in " ".join(done.stderr.split())
    assert not (tmp_path / "net.bundle" / TUNING_NAME).exists()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    made = command("convert", onnx_file(folder, "unet_d2"), "-o", folder / "net.bundle", "--no-verify")
    assert made.returncode == 0, made.stderr
    return folder / "net.bundle"


@pytest.fixture
def bundle(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "net.bundle")


def test_a_bundle_is_tuned_by_one_command_and_run_by_it(bundle, tmp_path):
    done = command("tune", bundle, "--seconds", "2", "--threads", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((bundle / TUNING_NAME).read_text())
    shown = command("info", bundle)
    assert f"on {machine_name()}, 2 threads" in " ".join(shown.stdout.split())
    image = image_for("unet_d2", 260, 300)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb")
    for threads, tuned in ((2, True), (1, False)):
        out = tmp_path / f"{threads}.tif"
        done = command("run", bundle, tmp_path / "image.tif", "-o", out, "--threads", str(threads), "--json")
        assert done.returncode == 0, done.stderr
        assert ("by what was tuned" in json.loads(done.stdout)["reason"]) == tuned
    assert np.array_equal(tifffile.imread(tmp_path / "1.tif"), tifffile.imread(tmp_path / "2.tif"))
    again = command("tune", bundle, "--seconds", "1", "--threads", "1")
    assert again.returncode == 0, again.stderr
    assert "Mpx/s" in again.stdout
    assert open_bundle(bundle).model.tuning.threads == 1


def test_what_is_read_is_what_was_written(tmp_path):
    tuning = tuning_of(shape_of(), shape_of("strip", 2, seconds=3e-8))
    write_tuning(tmp_path, tuning)
    assert read_tuning(tmp_path, lambda: "0" * 64) == tuning
    assert read_tuning(tmp_path / "elsewhere", lambda: "0" * 64) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:40], "is damaged"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "another version"),
        (lambda text: text.replace('"lanes": 1', '"lanes": 0'), "is damaged"),
        (lambda text: text.replace("0" * 64, "1" * 64), "another model"),
        (lambda text: text + " " * (2 << 20), "it is no tuning"),
    ],
)
def test_a_damaged_tuning_or_that_of_another_model_is_refused(tmp_path, change, says):
    path = write_tuning(tmp_path, tuning_of(shape_of()))
    path.write_text(change(path.read_text()))
    with pytest.raises(BundleError, match=says) as caught:
        read_tuning(tmp_path, lambda: "0" * 64)
    assert "exactile tune BUNDLE" in str(caught.value)


def test_a_damaged_tuning_is_measured_anew(bundle):
    (bundle / TUNING_NAME).write_text("{")
    with pytest.raises(BundleError):
        open_bundle(bundle)
    done = command("tune", bundle, "--seconds", "1", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert open_bundle(bundle).model.tuning is not None


def test_shapes_that_would_take_too_long_are_left_out(monkeypatch):
    """By a clock that goes on a second each time that it is looked at."""
    monkeypatch.setattr(measure, "TILES_PX", (64, 96, 128))
    monkeypatch.setattr(measure, "STRIPS_PX", ())
    ticks = count()
    with closing(session_of(None, threads=1)) as session:
        tuner = measure.Tuner(
            model=session._model, planner=session._planner, processor=session._processor, machine="m",
            seconds=2.5, progress=lambda _done, _total: None, clock=lambda: float(next(ticks)),
        )  # fmt: skip
        assert [one.shape for one in tuner.run().shapes] == [(64, 64), (96, 96)]
