"""Sessions on GPUs as users run them: what was asked for is what runs; many images, background, runs that end early."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from exactile.errors import BudgetError, DeviceError, OptionError, ResumeError, SinkError
from exactile.plan.background import Threshold
from exactile.planning import Wish
from exactile.processors.station import SLOTS
from exactile.runs.batch import run_all
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from tests.emulation.driver import EmulatedDevice
from tests.support.emulated_gpu import BINDINGS, deployed, emulated, picture, run, segmented, with_engines
from tests.support.onnx_runtime_cuda_stand_in import OnnxRuntimeCudaStandIn
from tests.support.tensorrt_stand_in import EmulatedGpu

TURING = EmulatedDevice(name="Emulated T4", compute_capability=(7, 5))
MIB = 1 << 20


class Forgets(list):
    """Holds no session alive, as the real module does not."""

    def append(self, _item) -> None: ...


def cuda_provider(monkeypatch, emulation, tmp_path) -> OnnxRuntimeCudaStandIn:
    stand_in = OnnxRuntimeCudaStandIn(EmulatedGpu(emulation), arena_bytes=4096, root=tmp_path)
    stand_in.sessions = Forgets()
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in.module)
    return stand_in


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_onnx_runtime_on_cuda_gives_what_the_cpu_gives(binding, plan, output, monkeypatch, tmp_path):
    """Any shape runs, in every plan, by addresses on the device: the result of the CPU, bit for bit."""
    model = deployed("unet_d2", output)
    image = picture(model, 150, 130)
    tile = {"whole": None, "tile": (64, 96), "strip": (16, 96)}[plan]
    expected = segmented(model, image, plan=plan, tile=tile)
    with emulated(monkeypatch, binding, max_delay_s=0.001) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        session = Session(model, device="cuda:0", engine="onnxruntime")
        assert session.processor == "cuda:0 Emulated GPU; onnxruntime 1.31.1 (CUDA)"
        result = run(session, image, plan=plan, tile=tile)
        session.close()
        assert np.array_equal(result, expected)
        assert emulation.violations() == []
        assert emulation.leaks() == []


def test_onnx_runtime_backs_off_when_the_gpu_is_smaller_than_it_said(monkeypatch, tmp_path):
    """Buffers that do not fit: smaller tiles are planned until they do, and the summary says why."""
    model = deployed("unet_bilinear_d1", strips=False)
    image = picture(model, 400, 400)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, "cuda.bindings", memory_bytes=MIB) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        session, sink = Session(model, device="cuda:0", device_memory_bytes=1 << 30), ArraySink()
        summary = session.segment(ArraySource(image), sink)
        session.close()
        assert "did not fit the GPU's memory" in summary.reason
        assert max(summary.tile) < 400
        assert np.array_equal(sink.result, expected)
        assert emulation.leaks() == []


def test_a_forced_tile_that_does_not_fit_is_refused_with_both_numbers(monkeypatch, tmp_path):
    """Nothing else is taken silently: the message says what is needed and what may be used."""
    model = deployed("unet_bilinear_d1", strips=False)
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        with pytest.raises(
            BudgetError, match=r"a pass of 400x400 needs about .* on the GPU, where 1.0 MiB may be used"
        ):
            segmented(model, picture(model, 400, 400), device="cuda:0", plan="whole", device_memory_bytes=MIB)


def test_what_was_asked_for_is_what_runs(monkeypatch, tmp_path):
    """A GPU that is not there, an engine that was not built, a CPU-only ONNX Runtime: each an error with the reason."""
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
    bare = deployed("unet_bilinear_d1")
    with emulated(monkeypatch, "pycuda") as (emulation, _):
        with pytest.raises(DeviceError, match=r"cuda:3 was requested, but the GPUs here are: cuda:0"):
            Session(model, device="cuda:3")
        with pytest.raises(DeviceError, match=r"no tensorrt engine .* none was built .*exactile convert"):
            Session(bare, device="cuda:0", engine="tensorrt")
        with pytest.raises(DeviceError, match="runs on the CPU alone"):
            Session(bare, device="cuda:0")
        with pytest.raises(DeviceError, match=r"engine of fp16 .* there are engines of fp32"):
            Session(model, device="cuda:0", engine="tensorrt:fp16")
        with pytest.raises(OptionError, match="runs on GPUs"):
            Session(model, device="cpu", engine="tensorrt")
        with pytest.raises(OptionError, match="an engine is one of"):
            Session(model, engine="ncnn")
        with pytest.raises(OptionError, match="runs on the CPU"):
            Session(model, device="cuda:0", engine="openvino")
        with pytest.raises(OptionError, match="--device takes"):
            Session(model, device="gpu")
        assert emulation.leaks() == []


def test_auto_takes_the_gpu_where_an_engine_fits_and_says_why_not_elsewhere(monkeypatch, tmp_path):
    """The GPU with an engine; the CPU with the reason where the GPU has none; the CPU where there is no GPU."""
    model, bare = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)]), deployed("unet_bilinear_d1")
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        on_gpu = Session(model)
        assert on_gpu.processor == "cuda:0 Emulated GPU; tensorrt 11.4.0.106, fp32"
        on_gpu.close()
        assert Session(bare).processor.startswith("cpu, onnxruntime")
        assert "not Emulated GPU: this onnxruntime" in Session(bare).processor
        emulation.reset(devices=0)
        assert "(" not in Session(model).processor


def test_gpus_of_different_kinds_do_not_share_an_image(monkeypatch, tmp_path):
    """Their last digits differ: asked for together they are refused, auto takes those like the first."""
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
    with emulated(monkeypatch, "pycuda", devices=[EmulatedDevice(), TURING]) as (emulation, _):
        with pytest.raises(DeviceError, match="different kinds"):
            Session(model, device="cuda:0,cuda:1")
        with pytest.raises(DeviceError, match=r"built for compute capability 8.6, 8.9, and cuda:1 .* has 7.5"):
            Session(model, device="cuda:1")
        session = Session(model)
        assert session.processor.startswith("cuda:0 Emulated GPU;")
        session.close()
        assert emulation.leaks() == []


def test_an_engine_of_another_version_is_refused(monkeypatch, tmp_path):
    """The message names both versions."""
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
    other = replace(model, engines=tuple(replace(e, backend_version="10.3.0") for e in model.engines))
    with (
        emulated(monkeypatch, "pycuda"),
        pytest.raises(DeviceError, match=r"built by tensorrt 10.3.0, and 11.4.0.106 is installed"),
    ):
        Session(other, device="cuda:0", engine="tensorrt")


@pytest.mark.parametrize("engines", [{"tiles": [(64, 96)]}, {"strips": [(16, 160)]}])
def test_engines_of_half_precision_run_where_they_are_asked_for(engines, monkeypatch, tmp_path):
    """Their carries are halves, too; few labels differ, as the precision itself makes them."""
    full, half = (
        with_engines(deployed("unet_d2"), tmp_path / precision, **engines, precision=precision)
        for precision in ("fp32", "fp16")
    )
    both = replace(full, engines=full.engines + half.engines)
    image = picture(full, 150, 160)
    expected = segmented(full, image, plan="whole")
    with emulated(monkeypatch, "pycuda") as (emulation, _):
        results = {}
        for name in ("tensorrt", "tensorrt:fp16"):
            session = Session(both, device="cuda:0", engine=name)
            results[name] = run(session, image)
            session.close()
        assert np.array_equal(results["tensorrt"], expected)
        differing = np.count_nonzero(results["tensorrt:fp16"] != expected)
        assert 0 < differing < 0.02 * expected.size
        assert emulation.violations() == []
        assert emulation.leaks() == []


def test_many_images_share_one_gpu(monkeypatch, tmp_path):
    """Two images are under way at a time, the GPU belongs to one; all results are those of the CPU."""
    model = with_engines(deployed("unet_d2"), tmp_path, tiles=[(64, 96)])
    images = [picture(model, 130 + 20 * n, 150, seed=n) for n in range(4)]
    expected = [segmented(model, image, plan="whole") for image in images]
    with emulated(monkeypatch, "cuda.bindings", max_delay_s=0.002) as (emulation, _):
        session, sinks = Session(model, device="cuda:0", keep_engine=True), [ArraySink() for _ in images]

        def prepare(n, read):
            image_run = session.image_run(ArraySource(images[n]), sinks[n], Wish(), release_early=True)
            image_run.watcher = replace(image_run.watcher, read=read)
            return image_run

        outcomes = list(run_all(range(4), prepare))
        session.close()
        assert [outcome.error for outcome in outcomes] == [None] * 4
        assert all(np.array_equal(sink.result, wanted) for sink, wanted in zip(sinks, expected, strict=True))
        assert emulation.violations() == []
        assert emulation.leaks() == []


def test_background_is_not_sent_to_the_gpu(monkeypatch, tmp_path):
    """Tiles that are all background cost no copy and no inference, in batches, too."""
    model = with_engines(deployed("unet_d2"), tmp_path, tiles=[(64, 96)], batch=2)
    image = picture(model, 300, 300)
    image[:150] = 255
    background = Threshold(value=220, beyond="above")
    expected = segmented(model, image, plan="tile", tile=(64, 96), background=background)
    with emulated(monkeypatch, "pycuda") as (emulation, _):
        session, sink = Session(model, device="cuda:0"), ArraySink()
        summary = session.segment(ArraySource(image), sink, background=background)
        session.close()
        assert np.array_equal(sink.result, expected)
        assert summary.skipped_tiles > 5
        copies = [op for op in emulation.trace() if op.kind == "copy_in"]
        assert len(copies) == -(-(summary.tiles - summary.skipped_tiles) // 2)
        assert emulation.leaks() == []


class Breaks(TiffSink):
    """A disk that fails after some boxes."""

    left = 5

    def write(self, box, block) -> None:
        self.left -= 1
        if self.left < 0:
            raise SinkError("disk is full")
        super().write(box, block)


@pytest.mark.parametrize("engines", [{"tiles": [(64, 96)]}, {"strips": [(16, 160)]}])
def test_a_run_that_ended_early_goes_on_to_the_same_bytes(engines, monkeypatch, tmp_path):
    """On the same GPU with the same engine; on the CPU it is another run, and refused."""
    model = with_engines(deployed("unet_d2"), tmp_path, **engines)
    image = picture(model, 200, 160)
    with emulated(monkeypatch, "pycuda") as (emulation, _):
        session = Session(model, device="cuda:0")
        session.segment(ArraySource(image), TiffSink(tmp_path / "whole.tif"))
        with pytest.raises(SinkError, match="disk is full"):
            session.segment(ArraySource(image), Breaks(tmp_path / "again.tif", resumable=True))
        host = Session(model, device="cpu")
        with pytest.raises(ResumeError, match="another one"):
            host.segment(ArraySource(image), TiffSink(tmp_path / "again.tif", resumable=True), resume=True)
        summary = session.segment(ArraySource(image), TiffSink(tmp_path / "again.tif", resumable=True), resume=True)
        session.close()
        assert summary.kept_pixels > 0
        assert emulation.violations() == []
        assert emulation.leaks() == []
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_the_compute_step_becomes_a_cuda_graph_where_the_binding_can_capture(monkeypatch, tmp_path):
    """With cuda.bindings inferences are launched as graphs from the second use of a slot on; pycuda enqueues each."""
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, strips=[(16, 48)], tiles=[(32, 48)])
    image = picture(model, 700, 48)
    expected = segmented(model, image, plan="whole")
    launches = {}
    for binding in BINDINGS:
        for plan in ("tile", "strip"):
            with emulated(monkeypatch, binding) as (emulation, _):
                assert np.array_equal(segmented(model, image, device="cuda:0", plan=plan), expected)
                launches[binding, plan] = emulation.calls().get("cuGraphLaunch", 0)
                assert emulation.violations() == []
                assert emulation.leaks() == []
    assert launches["pycuda", "tile"] == launches["pycuda", "strip"] == 0
    assert launches["cuda.bindings", "tile"] > 20
    assert launches["cuda.bindings", "strip"] > 20


@pytest.mark.parametrize("binding", BINDINGS)
def test_pinned_memory_is_allocated_once_for_images_of_one_shape(monkeypatch, tmp_path, binding):
    """Page-locking holds up the work of all streams: one piece to read into, kept for the next image."""
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
    with emulated(monkeypatch, binding) as (emulation, _):
        session = Session(model, device="cuda:0")
        counts = []
        for seed in range(3):
            assert np.array_equal(
                run(session, picture(model, 100, 150, seed=seed)), segmented(model, picture(model, 100, 150, seed=seed))
            )
            counts.append(emulation.calls()["cuMemHostAlloc"])
        assert counts == [SLOTS + 1] * 3
        run(session, picture(model, 32, 48))
        assert emulation.calls()["cuMemHostAlloc"] == SLOTS + 2 + SLOTS
        session.close()
        assert emulation.leaks() == []


def test_two_runs_at_once_do_not_share_what_they_read_into(monkeypatch, tmp_path):
    """Each has pinned memory of its own, and one of the two is kept."""
    model = with_engines(deployed("unet_bilinear_d1"), tmp_path, tiles=[(32, 48)])
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        session = Session(model, device="cuda:0")
        images = [picture(model, 100, 150, seed=seed) for seed in range(2)]
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda image: run(session, image), images))
        for image, result in zip(images, found, strict=True):
            assert np.array_equal(result, segmented(model, image))
        session.close()
        assert emulation.leaks() == []
