"""Networks that take statistics of the whole image, in passes on emulated GPUs, against the CPU and one pass."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import cache
from itertools import cycle
from math import prod

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile

import exactile
from exactile.contract import POSITION, DeployedModel
from exactile.contract.statistic import ZONE
from exactile.engines.device_partials import DevicePartials
from exactile.errors import DeviceError, DeviceMemoryError, PlanError, SourceError
from exactile.passes.merge import Merged
from exactile.pipeline.device_lane import DeviceLane
from exactile.plan.position import position_of
from exactile.plan.tiles import TilePlan
from exactile.plan.zones import zone_of
from exactile.processors.station import Station
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile.sources.open import open_source
from exactile_converters.convert import convert
from exactile_converters.deploy import deploy_in_passes
from exactile_converters.prepare.from_onnx import prepare_network
from tests.gpu.test_gpu_sessions import cuda_provider
from tests.passes.test_bins import Pyramid, seeded
from tests.support.emulated_gpu import BINDINGS, emulated, with_engines
from tests.support.global_nets import chain, integers

NAMES = ("instance_norm", "group_norm", "excitation", "largest", "smallest", "root_of_squares", "integers")
SIZE = (42, 58)
TILE = (24, 28)
TOLERANCE = 3e-6


@cache
def deployed(name: str) -> DeployedModel:
    model = integers() if name == "integers" else chain(name)
    return deploy_in_passes(
        prepare_network(onnx.load_from_string(model), name=name), image_dtype="uint8", output="raw", strips=False
    )


def picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Bright on one side, so that zones differ from the whole."""
    pixels = np.random.default_rng(5).integers(0, 12, (*size, 1)).astype(np.uint8)
    pixels[size[0] // 2 :] += 9
    return pixels


def one_pass(name: str, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = integers() if name == "integers" else chain(name)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]


def in_passes(model: DeployedModel, image: np.ndarray, **options):
    session, sink = Session(model, **{"engine": "onnxruntime", **options}), ArraySink()
    summary = session.segment(ArraySource(image), sink, plan="tile", tile=TILE)
    session.close()
    return sink.result, summary


@pytest.mark.parametrize(("name", "binding"), [*zip(NAMES, cycle(BINDINGS), strict=False)])
def test_passes_on_cuda_equal_one_pass(name, binding, monkeypatch, tmp_path):
    """Statistics of every kind are found on the GPU: the result is that of plain ONNX Runtime on the whole image."""
    image, model = picture(), deployed(name)
    expected = one_pass(name, image)
    with emulated(monkeypatch, binding, max_delay_s=0.001) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        found, summary = in_passes(model, image, device="cuda:0")
        assert summary.processor.startswith("cuda:0")
        assert len(summary.passes) == len(model.levels)
        assert all(one.tiles > 1 for one in summary.passes)
        assert emulation.violations() == []
        assert emulation.leaks() == []
    assert np.abs(found - expected).max() <= (0 if name == "integers" else TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize(("name", "binding"), [*zip(NAMES, cycle(BINDINGS), strict=False)])
def test_passes_in_tensorrt_equal_one_pass(name, binding, monkeypatch, tmp_path):
    """Of engines for the tiles of each pass, whose work is captured where the binding can."""
    image = picture()
    model, expected = with_engines(deployed(name), tmp_path, tiles=[TILE]), one_pass(name, image)
    with emulated(monkeypatch, binding, max_delay_s=0.001) as (emulation, _):
        found, summary = in_passes(model, image, device="cuda:0", engine="tensorrt")
        assert [one.tile for one in summary.passes] == [TILE] * len(model.levels)
        assert emulation.violations() == []
        assert emulation.leaks() == []
    assert np.abs(found - expected).max() <= (0 if name == "integers" else TOLERANCE * np.abs(expected).max())


class Stopping(ArraySource):
    """Fails after ``left`` reads."""

    left = 1 << 30

    def read(self, box, out) -> None:
        self.left -= 1
        if self.left < 0:
            time.sleep(0.2)  # what was read is computed meanwhile
            raise SourceError("the disk is gone")
        super().read(box, out)


def test_a_pass_on_a_gpu_goes_on_where_it_was(monkeypatch, tmp_path):
    """Several GPUs finish tiles in any order; statistics are merged in that of the plan, to the same bytes."""
    image, model, reads = picture((140, 58)), deployed("instance_norm"), []
    with emulated(monkeypatch, "cuda.bindings", devices=2, max_delay_s=0.001) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        for name, left, resume in (("whole", 1 << 30, False), ("a", 13, False), ("a", 1 << 30, True)):
            source, session = Stopping(image), Session(model, engine="onnxruntime", device="cuda:all")
            source.left = left
            sink = TiffSink(tmp_path / f"{name}.tif", resumable=True)
            with pytest.raises(SourceError) if left == 13 else nullcontext():
                session.segment(source, sink, plan="tile", tile=TILE, resume=resume)
            reads.append(left - source.left)
            session.close()
        assert emulation.violations() == []
        assert emulation.leaks() == []
    assert reads[2] <= reads[0] - 6
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_an_engine_of_a_pass_that_is_missing_is_told(monkeypatch, tmp_path):
    """With the command that builds it. An image of another remainder is not extended: its statistics would change."""
    model = with_engines(deployed("integers"), tmp_path, tiles=[TILE])
    without = replace(model, engines=tuple(one for one in model.engines if one.level != 1))
    with emulated(monkeypatch, "cuda.bindings") as _:
        with pytest.raises(DeviceError, match=r"pass 1 of \d+ over the image: no tensorrt engine.*exactile convert"):
            in_passes(without, picture(), device="cuda:0", engine="tensorrt")
        with pytest.raises(PlanError, match="no engine was built"):
            in_passes(model, picture((41, 57)), device="cuda:0", engine="tensorrt")


@pytest.mark.parametrize("name", ["image", "maxima", "means"])
def test_what_a_graph_for_gpus_gives_is_what_the_one_for_the_cpu_gives(name):
    """Zone by zone, of maps channels last and first, with bins and without: statistics after the last zone agree."""
    model = {
        "image": lambda: deployed("instance_norm"),
        "maxima": lambda: bins_model("maximum", (2, (5, 3))),
        "means": lambda: bins_model("mean", (1, 3)),
    }[name]()
    level = model.levels[0]
    told = DevicePartials.of(level)
    plan = TilePlan.of(level.model.contract.geometry, (75, 61), "model", (25, 21))
    assert len(plan) > 4
    image = picture((75, 61))
    merged, expected = Merged(level.statistics), Merged(level.statistics)
    masks = np.empty(told.mask_bytes(plan.x.tile), np.uint8)
    for step in plan:
        tile = np.ascontiguousarray(image[step.tile.slices()])
        told.tell(plan, step, masks)
        given = {
            key: masks[start : start + 4 * prod(told.shapes_at(plan.x.tile)[key])]
            .view(np.float32)
            .reshape(told.shapes_at(plan.x.tile)[key])
            for key, start in told.offsets_at(plan.x.tile).items()
        }
        raw = on_cpu(level.device_model, {"exactile_image": tile, **given})
        assert raw.shape == (told.numbers_at(plan.y.tile),)
        merged.add(told.of_zone(plan, step, raw))
        position = position_of(plan.y.domain, plan.x.domain, step.tile)
        feeds = {"exactile_image": tile, ZONE: zone_of(plan, step), POSITION: position}
        expected.add(on_cpu(level.model, feeds))
    for key, value in expected.values().items():
        np.testing.assert_allclose(merged.values()[key], value, rtol=2e-6, atol=2e-6)


def test_two_gpus_find_the_same_bits_as_one(monkeypatch, tmp_path):
    """Partial statistics are merged in the order of the plan, whichever GPU was first."""
    image, model = picture((90, 74)), deployed("group_norm")
    with emulated(monkeypatch, "cuda.bindings", devices=2, seed=1, max_delay_s=0.004) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        one, _ = in_passes(model, image, device="cuda:0")
        both, _ = in_passes(model, image, device="cuda:all")
        assert np.array_equal(one, both)
        assert emulation.violations() == []


def test_a_bundle_runs_in_passes_on_a_gpu(monkeypatch, tmp_path):
    """Its graphs for GPUs are read back; statistics of images can be measured there, too, and given."""
    (tmp_path / "net.onnx").write_bytes(chain("excitation"))
    convert(tmp_path / "net.onnx", tmp_path / "net.bundle", output="raw", tile=(64, 64))
    model = exactile.open_bundle(tmp_path / "net.bundle").model
    assert model.keeping is not None
    image = picture()
    expected = one_pass("excitation", image)
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        found, _ = in_passes(model, image, device="cuda:0")
        session, sink = Session(model, device="cuda:0", engine="onnxruntime"), ArraySink()
        statistics = session.measure_statistics([ArraySource(image)], tile=TILE)
        summary = session.segment(ArraySource(image), sink, statistics=statistics, plan="tile", tile=TILE)
        session.close()
        assert summary.passes == ()
        assert emulation.leaks() == []
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert np.array_equal(sink.result, found)


def test_images_at_once_take_turns_between_passes(monkeypatch, tmp_path):
    """Of one session, from and into TIFF: the GPU goes from one image's pass to another's, and bits stay the same."""
    image, model = picture((90, 74)), deployed("excitation")
    tifffile.imwrite(tmp_path / "image.tif", image[..., 0], tile=(32, 32))
    with emulated(monkeypatch, "cuda.bindings", max_delay_s=0.001) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        expected, _ = in_passes(model, image, device="cuda:0")
        session = Session(model, device="cuda:0", engine="onnxruntime")

        def run(number: int) -> np.ndarray:
            source, path = open_source(tmp_path / "image.tif"), tmp_path / f"{number}.tif"
            with closing(source):
                session.segment(source, TiffSink(path), plan="tile", tile=TILE)
            return tifffile.imread(path)

        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(run, range(4)))
        session.close()
        assert all(np.array_equal(one, expected) for one in found)
        assert emulation.violations() == []
        assert emulation.leaks() == []


def test_an_image_at_whose_size_operators_depend_on_the_position_is_refused(monkeypatch, tmp_path):
    """It is not extended, which would change the statistics; left to choose, such a network runs on the CPU."""
    model, image = deployed("instance_norm"), picture((41, 57))
    assert model.placed is not None
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        with pytest.raises(DeviceError, match=r"41 x 57 pixels .* on the CPU only.*--device cpu"):
            in_passes(model, image, device="cuda:0")
        _, summary = in_passes(model, image)
        assert summary.processor.startswith("cpu")
        without = replace(model, levels=tuple(replace(level, on_device=None) for level in model.levels))
        with pytest.raises(DeviceError, match="convert the model again"):
            in_passes(without, image, device="cuda:0")


def test_a_pass_backs_off_when_the_gpus_memory_runs_out(monkeypatch, tmp_path):
    """The whole image does not fit a pass after all: it takes smaller tiles."""
    image, model = picture((300, 300)), deployed("largest")
    original = Station.ready

    def full(self, plan, batch, cancellation, work=None):
        if work is not None and len(plan) == 1:
            raise DeviceMemoryError("out of memory")
        original(self, plan, batch, cancellation, work)

    monkeypatch.setattr(Station, "ready", full)
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        session, sink = Session(model, device="cuda:0"), ArraySink()
        summary = session.segment(ArraySource(image), sink)
        session.close()
        assert len(summary.passes) == len(model.levels)
        assert all(one.tiles > 1 for one in summary.passes)
        assert emulation.leaks() == []
    expected = one_pass("largest", image)
    assert np.abs(sink.result - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_masks_that_nobody_waits_for_are_found(monkeypatch, tmp_path):
    """A planted bug: masks copied on a stream that inference does not wait for."""

    def careless(self, slot, step):
        if slot.told is not None:
            pinned, buffer = slot.told
            self.partials.tell(self.plan, step, pinned.array)
            self.ring.copy_out.copy_in(buffer, pinned.array)

    monkeypatch.setattr(DeviceLane, "_tell", careless)
    with emulated(monkeypatch, "cuda.bindings", max_delay_s=0.002) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        in_passes(deployed("largest"), picture(), device="cuda:0")
        assert any("race" in str(one) for one in emulation.violations())


def bins_model(kind: str, grids: tuple[object, ...]) -> DeployedModel:
    network = prepare_network(onnx.load_from_string(seeded(Pyramid, kind, grids)), name="bins.onnx")
    return deploy_in_passes(network, image_dtype="uint8", output="raw", strips=False)


def on_cpu(model: DeployedModel, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """By plain ONNX Runtime, at whatever shape."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    names = list(model.weights)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(model.weights[name]) for name in names]
    if names:
        options.add_external_initializers(names, values)
    session = onnxruntime.InferenceSession(model.graph, options, providers=["CPUExecutionProvider"])
    asked = {one.name for one in session.get_inputs()}
    assert asked <= feeds.keys()
    return session.run(None, {name: value for name, value in feeds.items() if name in asked})[0]
