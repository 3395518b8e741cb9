"""The GPU kit's check of single operators: it passes where they are right, and finds one that is not."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
from onnx import numpy_helper

from benchmarks.gpu_kit import provider
from benchmarks.gpu_kit.correctness import operators
from tests.gpu.test_gpu_sessions import cuda_provider
from tests.support.emulated_gpu import emulated

BINDING = "cuda.bindings"


@pytest.fixture
def on_emulation(monkeypatch, tmp_path):
    with emulated(monkeypatch, BINDING) as (emulation, _):
        cuda_provider(monkeypatch, emulation, tmp_path)
        yield emulation


def test_every_operator_is_right_in_every_plan_with_the_cpus_kernels(on_emulation, tmp_path):
    found = operators.alone(BINDING, tmp_path)
    assert found["passed"], [row for row in found["rows"] if not row["right"]]
    assert len(found["rows"]) == len(operators.CASES) + 1
    strips = [row["operator"] for row in found["rows"] if "max abs, strips" in row]
    assert {"max pooling, padded after", "transposed, padded after", "averages, rounded up"} <= set(strips)
    assert on_emulation.violations() == []


@pytest.mark.parametrize("name", ["max pooling, padded after", "linear"])
def test_a_wrong_pixel_is_found(name, on_emulation, monkeypatch):
    original = operators.run

    def wrong(session, image, way):
        result = original(session, image, way).copy()
        if way.plan == "strip":
            result[0, -1, -1] += 1
        return result

    monkeypatch.setattr(operators, "run", wrong)
    row = operators._row(name, operators.CASES[name], BINDING)
    assert not row["right"]
    assert row["max abs, strips"] > 0.5
    assert row["max abs, tiles"] < 0.5


@pytest.mark.parametrize("name", ["convolution, float32", "transposed, float32"])
def test_weights_rounded_as_tf32_rounds_them_are_found(name, on_emulation, monkeypatch):
    """A GPU that kept 10 bits of the mantissa would be off by more than rounding."""
    original = operators.prepare_network

    def rounded(model, **options):
        for tensor in model.graph.initializer:
            kept = numpy_helper.to_array(tensor).view(np.uint32) & np.uint32(0xFFFFE000)
            tensor.CopyFrom(numpy_helper.from_array(kept.view(np.float32), tensor.name))
        return original(model, **options)

    monkeypatch.setattr(operators, "_on_cpu", partial(_before, operators._on_cpu, operators.CASES[name]))
    monkeypatch.setattr(operators, "prepare_network", rounded)
    assert not operators._row(name, operators.CASES[name], BINDING)["right"]


def _before(original, case, _network, image):
    """One pass of the network as it was before it was rounded."""
    return original(operators._network(case), image)


def test_a_tie_that_goes_to_another_class_is_found(on_emulation, monkeypatch):
    monkeypatch.setattr(operators, "run", lambda session, image, _: np.full(image.shape[:2], session is None, np.uint8))
    assert operators._ties(BINDING)["right"]
    monkeypatch.setattr(operators, "run", lambda *_: np.ones((4, 4), np.uint8))
    assert not operators._ties(BINDING)["right"]


def test_nothing_of_it_is_replaced_outside_of_a_rehearsal(monkeypatch):
    """The check runs on whatever onnxruntime there is."""
    before = sys.modules.get("onnxruntime")
    monkeypatch.delenv("EXACTILE_GPU_KIT_REHEARSAL", raising=False)
    provider.stand_in_for_cuda()
    assert sys.modules.get("onnxruntime") is before
