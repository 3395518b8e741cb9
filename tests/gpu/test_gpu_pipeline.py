"""The whole GPU pipeline on an emulated driver: the labels of the CPU, no race, no leak, clear errors.

pycuda and cuda.bindings are the real ones; TensorRT is a stand-in that runs ONNX Runtime inside the emulated streams.
"""

from __future__ import annotations

import numpy as np
import pytest

from exactile.contract import ImageStatistics
from exactile.errors import BudgetError, DeviceError, DeviceMemoryError, ExactileError, PlanError
from exactile.session import Session
from exactile_converters.graphs.io import Normalization
from tests.support.emulated_gpu import BINDINGS, deployed, emulated, picture, run, segmented, with_engines

pytestmark = pytest.mark.parametrize("binding", BINDINGS)

PLANS = {
    "tiles": {"tiles": [(64, 96)]},
    "batches": {"tiles": [(64, 96)], "batch": 3},
    "strips": {"strips": [(16, 160)]},
    "bands": {"strips": [(16, 96)]},
}


def clean(emulation) -> bool:
    """Nothing was done wrong, nothing was left behind."""
    assert emulation.violations() == []
    assert emulation.leaks() == []
    assert emulation.errors == []
    return True


@pytest.mark.parametrize("engines", PLANS)
@pytest.mark.parametrize("output", ["labels", "raw"])
def test_the_result_is_that_of_the_cpu(binding, engines, output, monkeypatch, tmp_path):
    """Labels and raw maps, tiles, batches, strips and bands: bit for bit, without a race or a leak."""
    model = with_engines(deployed("unet_d2", output), tmp_path, **PLANS[engines])
    image = picture(model, 150, 160)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding) as (emulation, _):
        result = segmented(model, image, device="cuda:0")
        assert np.array_equal(result, expected)
        assert clean(emulation)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
@pytest.mark.parametrize("engines", PLANS)
def test_random_delays_change_nothing(binding, engines, seed, monkeypatch, tmp_path):
    """Whatever a copy or an inference is delayed by, the labels are the same."""
    model = with_engines(deployed("unet_d2"), tmp_path, **PLANS[engines])
    image = picture(model, 130, 160, seed=seed)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding, seed=seed, max_delay_s=0.003) as (emulation, _):
        assert np.array_equal(segmented(model, image, device="cuda:0"), expected)
        assert clean(emulation)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_samples_of_other_types_travel_as_they_are(binding, dtype, monkeypatch, tmp_path):
    """16-bit samples go to the device as bytes, floats as they are."""
    model = with_engines(deployed("unet_d2", "labels", dtype), tmp_path, tiles=[(64, 96)])
    image = picture(model, 100, 110)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding) as (emulation, _):
        assert np.array_equal(segmented(model, image, device="cuda:0"), expected)
        assert clean(emulation)


@pytest.mark.parametrize("border", ["reflect", "constant"])
@pytest.mark.parametrize("net", ["unet_d2", "unet_transpose3_d2", "valid", "low_resolution", "super_resolution"])
def test_every_geometry_and_border(binding, net, border, monkeypatch, tmp_path):
    """Scale, offset, asymmetric halos, and borders that lie outside the image."""
    model = with_engines(deployed(net), tmp_path, tiles=[(72, 104)])
    image = picture(model, 130, 150)
    expected = segmented(model, image, border=border, plan="whole")
    with emulated(monkeypatch, binding) as (emulation, _):
        assert np.array_equal(segmented(model, image, device="cuda:0", border=border), expected)
        assert clean(emulation)


def test_one_band_leaves_a_second_gpu_idle(binding, monkeypatch, tmp_path):
    """Strips of full width follow each other on one GPU; the other one has nothing to do, and no harm is done."""
    model = with_engines(deployed("unet_d2"), tmp_path, strips=[(16, 160)])
    image = picture(model, 150, 160)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding, devices=2) as (emulation, _):
        assert np.array_equal(segmented(model, image, device="cuda:all"), expected)
        assert clean(emulation)


@pytest.mark.parametrize("engines", ["tiles", "strips"])
def test_statistics_of_the_image_reach_the_device(binding, engines, monkeypatch, tmp_path):
    """Offset and scale of each image, measured before, are inputs there: two images in a row, each by its own."""
    normalized = deployed("unet_d2", normalization=Normalization(statistics=ImageStatistics(kind="zscore")))
    model = with_engines(normalized, tmp_path, **PLANS[engines])
    images = [picture(model, 150, 160, seed=seed) // (1 + seed) for seed in range(2)]
    expected = [segmented(model, image, plan="whole") for image in images]
    with emulated(monkeypatch, binding, max_delay_s=0.001) as (emulation, _):
        session = Session(model, device="cuda:0")
        for image, wanted in zip(images, expected, strict=True):
            assert np.array_equal(run(session, image), wanted)
        session.close()
        assert clean(emulation)


@pytest.mark.parametrize("engines", ["tiles", "batches", "bands"])
def test_two_gpus_share_the_work(binding, engines, monkeypatch, tmp_path):
    """Tiles go to whichever GPU is free, bands to one each; both work, and the labels are the same."""
    model = with_engines(deployed("unet_d2"), tmp_path, **PLANS[engines])
    image = picture(model, 300, 160)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding, devices=2, seed=1, max_delay_s=0.004) as (emulation, _):
        assert np.array_equal(segmented(model, image, device="cuda:0,cuda:1"), expected)
        busy = [sum(op.device == device and op.label == "inference" for op in emulation.trace()) for device in (0, 1)]
        assert min(busy) > 2
        assert clean(emulation)


def test_a_session_keeps_its_engine_for_the_next_image(binding, monkeypatch, tmp_path):
    """The second image opens nothing; the first one's buffers serve it."""
    model = with_engines(deployed("unet_d2"), tmp_path, tiles=[(64, 96)])
    first, second = picture(model, 130, 150), picture(model, 170, 210, seed=1)
    expected = [segmented(model, image, plan="whole") for image in (first, second)]
    with emulated(monkeypatch, binding) as (emulation, _):
        session = Session(model, device="cuda:0")
        assert np.array_equal(run(session, first), expected[0])
        allocated = emulation.calls()["cuMemAlloc"]
        assert np.array_equal(run(session, second), expected[1])
        assert emulation.calls()["cuMemAlloc"] == allocated
        session.close()
        assert clean(emulation)


def test_rows_that_arrive_are_segmented_on_the_gpu(binding, monkeypatch, tmp_path):
    """A stream of rows gives what one pass gives, carries staying on the device."""
    model = with_engines(deployed("unet_d2"), tmp_path, strips=[(16, 160)])
    image = picture(model, 205, 160)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding) as (emulation, _):
        session = Session(model, device="cuda:0")
        with session.stream(width=160, dtype="uint8", rows=16) as stream:
            pieces = [piece for start in range(0, 205, 7) for _, piece in stream.push(image[start : start + 7])]
            pieces += [piece for _, piece in stream.close()]
        assert np.array_equal(np.concatenate(pieces), expected)
        session.close()
        assert clean(emulation)


def test_an_image_that_no_engine_was_built_for_is_refused(binding, monkeypatch, tmp_path):
    """A smaller image than the tile needs another engine: said with what there is and what to do."""
    model = with_engines(deployed("unet_d2"), tmp_path, tiles=[(64, 96)], strips=[(16, 160)])
    with emulated(monkeypatch, binding) as (emulation, _):
        with pytest.raises(PlanError, match=r"60 x 90 pixels; .* tiles of 64x96, strips of 16x160.*--device cpu"):
            segmented(model, picture(model, 60, 90), device="cuda:0")
        assert clean(emulation)


def test_what_does_not_fit_gives_way_to_something_smaller(binding, monkeypatch, tmp_path):
    """A larger tile is planned, the GPU's memory runs out, and the next smaller one runs; the summary says so."""
    from exactile.sinks.array import ArraySink
    from exactile.sources.array import ArraySource

    model = with_engines(deployed("unet_d2"), tmp_path, tiles=[(256, 256), (64, 96)])
    image = picture(model, 270, 300)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding, memory_bytes=1 << 20) as (emulation, _):
        session, sink = Session(model, device="cuda:0", device_memory_bytes=1 << 30), ArraySink()
        summary = session.segment(ArraySource(image), sink)
        session.close()
        assert summary.tile == (64, 96)
        assert "a tile of 256 x 256 did not fit the GPU's memory" in summary.reason
        assert np.array_equal(sink.result, expected)
        assert clean(emulation)


def test_a_gpu_that_is_too_small_for_everything_says_so(binding, monkeypatch, tmp_path):
    """Nothing is left that is smaller: the driver's own words come out."""
    model = with_engines(deployed("unet_d2"), tmp_path, tiles=[(256, 256), (64, 96)])
    with emulated(monkeypatch, binding, memory_bytes=1 << 16) as (emulation, _):
        with pytest.raises((DeviceMemoryError, BudgetError), match="memory"):
            segmented(model, picture(model, 270, 300), device="cuda:0")
        assert clean(emulation)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engines", ["tiles", "strips"])
def test_every_driver_call_may_fail(binding, engines, every, monkeypatch, tmp_path):
    """Whichever call fails, the run ends in one of our errors or in the right labels, and everything is given back."""
    model = (
        with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
        if engines == "tiles"
        else with_engines(deployed("unet_bilinear_d1"), tmp_path, strips=[(16, 48)])
    )
    image = picture(model, 40, 48)
    expected = segmented(model, image, plan="whole")
    failed = 0
    with emulated(monkeypatch, binding) as (emulation, _):
        segmented(model, image, device="cuda:0")
        calls = sum(emulation.calls().values())
        for number in range(1, calls + 1, every):
            emulation.reset()
            emulation.fail_at(number)
            try:
                assert np.array_equal(segmented(model, image, device="cuda:0"), expected)
            except ExactileError as error:
                failed += 1
                stuck = "making cuda:0 current failed" in str(error)
            else:
                stuck = False
            emulation.fail_at(0)
            # Where the context cannot be entered, what lives in it goes down with it.
            assert stuck or emulation.leaks() == []
            assert emulation.violations() == []
    assert failed > calls / every / 2


def test_an_operation_that_fails_on_the_device_ends_the_run(binding, monkeypatch, tmp_path):
    """A kernel that breaks the context is reported as what the driver says, and nothing hangs."""
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
    image = picture(model, 90, 100)
    with emulated(monkeypatch, binding) as (emulation, _):
        for number in (2, 4, 6):
            emulation.reset()
            emulation.fail_operation(number, "compute")
            with pytest.raises(DeviceError):
                segmented(model, image, device="cuda:0")


def test_copies_and_inference_of_different_tiles_overlap(binding, monkeypatch, tmp_path):
    """With equal stage costs each stage is busy in the steady state: wall time at most 1.1 of the bottleneck's."""
    seconds = 0.02
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
    image = picture(model, 32 * 16, 48)
    durations = {"copy_in": seconds, "compute": seconds, "copy_out": seconds}
    with emulated(monkeypatch, binding, durations=durations) as (emulation, _):
        segmented(model, image, device="cuda:0")
        kinds = {kind: [op for op in emulation.trace() if op.kind == kind] for kind in durations}
        inferences = kinds["compute"][1:]  # the first one warms up
        wall = kinds["copy_out"][-1].stop_s - kinds["copy_in"][0].start_s
        bottleneck = max(sum(op.stop_s - op.start_s for op in ops) for ops in (inferences, kinds["copy_in"]))
        assert len(inferences) > 20
        filling = 2 * seconds  # the first copy in and the last copy out have nothing to overlap with
        assert wall - filling <= 1.1 * bottleneck
        assert clean(emulation)
