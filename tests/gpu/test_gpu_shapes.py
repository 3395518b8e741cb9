"""Images of several shapes in one session on a GPU: each right, nothing kept of the last shape, buffers aligned."""

from __future__ import annotations

import numpy as np
import pytest

from exactile.engines.onnx_runtime_cuda import OnnxRuntimeCudaNetwork
from exactile.session import Session
from tests.gpu.test_gpu_sessions import cuda_provider
from tests.support.emulated_gpu import BINDINGS, deployed, emulated, picture, run, segmented

ALIGNED_BYTES = 256
"""What CUDA's own allocations are aligned to, and cuDNN's vectorised kernels and TensorRT's tensors rely on."""

SHAPES = ((150, 130), (70, 210), (150, 130), (96, 64), (150, 130))


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
def test_images_of_other_shapes_leave_nothing_behind(binding, plan, monkeypatch, tmp_path):
    """After the first shape comes back the same allocations are held as when it was there first."""
    model = deployed("unet_d2")
    images = [picture(model, *shape, seed=seed) for seed, shape in enumerate(SHAPES)]
    tile = {"whole": None, "tile": (64, 60), "strip": (16, 64)}[plan]
    expected = [segmented(model, image, plan="whole") for image in images]
    with emulated(monkeypatch, binding) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        session = Session(model, device="cuda:0", engine="onnxruntime")
        held = {}
        for image, labels in zip(images, expected, strict=True):
            assert np.array_equal(run(session, image, plan=plan, tile=tile), labels)
            calls = emulation.calls()
            held.setdefault(image.shape, []).append(calls["cuMemAlloc"] - calls.get("cuMemFree", 0))
        assert len({*held[150, 130, 3]}) == 1
        session.close()
        assert emulation.violations() == []
        assert emulation.leaks() == []


@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_what_networks_work_on_are_whole_buffers(plan, monkeypatch, tmp_path):
    """Images, results, carries and statistics begin where CUDA's allocations do, not somewhere inside of one."""
    model = deployed("unet_d2")
    seen: set[int] = set()
    original = OnnxRuntimeCudaNetwork.enqueue

    def watched(network, addresses, **options):
        seen.update(addresses.values())
        original(network, addresses, **options)

    monkeypatch.setattr(OnnxRuntimeCudaNetwork, "enqueue", watched)
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        session = Session(model, device="cuda:0", engine="onnxruntime")
        run(session, picture(model, 150, 130), plan=plan, tile={"tile": (64, 60), "strip": (16, 64)}[plan])
        session.close()
    assert len(seen) >= 8
    assert {address % ALIGNED_BYTES for address in seen} == {0}


def test_a_stream_of_rows_has_the_gpu_that_an_earlier_run_filled(monkeypatch, tmp_path):
    """Not beside what was kept for the next image, and that image is right all the same."""
    model = deployed("unet_d2")
    image = picture(model, 150, 130)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        session = Session(model, device="cuda:0", engine="onnxruntime")

        def held() -> int:
            return emulation.calls().get("cuMemAlloc", 0) - emulation.calls().get("cuMemFree", 0)

        counts = []
        for _ in range(2):
            with session.stream(width=130, dtype=np.uint8, rows=16) as stream:
                pieces = [*stream.push(image[:64])]
                counts.append(held())
                pieces += [*stream.push(image[64:]), *stream.close()]
            assert np.array_equal(np.concatenate([labels for _, labels in pieces]), expected)
            assert np.array_equal(run(session, image), expected)
        assert counts[0] == counts[1]
        session.close()
        assert emulation.violations() == []
        assert emulation.leaks() == []
