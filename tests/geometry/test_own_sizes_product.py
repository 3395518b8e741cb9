"""Every test network, export and trained model at sizes of every kind, in every plan: plain ONNX Runtime's own result.

Sizes are one to three strides and a remainder, and those of several tiles or strips. Where ONNX Runtime takes the
image, the result is its own over this very image; where it refuses it, that over the image as it was extended.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property

import numpy as np
import onnx
import onnxruntime
import pytest

from exactile.contract import DeployedModel
from exactile.errors import PlanError
from exactile.geometry import AxisGeometry
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_exports import FILES, OBSTACLES, kind
from tests.support.folders import TESTS
from tests.support.nets import NETS, Weights, onnx_bytes
from tests.support.oracle import RUNTIME_ERRORS

TRAINED = "stain_unet.onnx"
EXPORTS = [name for name in FILES if kind(name) not in OBSTACLES]
QUICK = {
    "valid",
    "low_resolution",
    "super_resolution",
    "unet_bilinear_skip_d2",
    "tensorflow_unet_transpose_64px_17.onnx",
}
"""A few seconds together; the others take minutes."""

MEMORY = 64 << 30
"""The budget counts the whole process, in which other tests have been before."""

EVERY_REMAINDER = 8
"""Networks of larger strides are run at some of them."""

FULL_WIDTH = 1 << 20

LARGE_PX = 200
"""Tiles of networks that look so far: fewer images."""

ROUNDING = 2e-6
"""Of the largest value: the last digit of sums in another order. Integer weights allow none."""

PLACED = {"unet_bilinear_skip_d2"}
"""It resizes by ratios such as 13/7, whose weights no float32 holds: integer weights do not make its sums exact."""


class Subject:
    """A network, plain ONNX Runtime on its own file, and what was deployed of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        whole_numbers = name in NETS and NETS[name].integer_weights
        self.exact = whole_numbers and name not in PLACED
        self._weights: Weights = "integer" if whole_numbers else "random"
        self._model = self._read()

    def _read(self) -> bytes:
        if self.name in NETS:
            return onnx_bytes(self.name, self._weights)
        folder = TESTS.parent / "models" if self.name == TRAINED else TESTS / "exports"
        return (folder / self.name).read_bytes()

    @cached_property
    def deployed(self) -> DeployedModel:
        network = prepare_network(onnx.load_from_string(self._model), name=self.name)
        return deploy(network, image_dtype="uint8", output="raw")

    @cached_property
    def session(self) -> Session:
        return Session(self.deployed, threads=1, memory_bytes=MEMORY)

    @cached_property
    def plain(self) -> onnxruntime.InferenceSession:
        """The file as it is, but that height and width are free where it was exported at one size."""
        model = onnx.load_from_string(self._model)
        for value in (*model.graph.input, *model.graph.output):
            for index, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.dim_value > 8:
                    dim.dim_param = f"{value.name}_{index}"
        del model.graph.value_info[:]
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options)

    def one_pass(self, image: np.ndarray) -> np.ndarray | None:
        """(C, H', W') of ``image`` (H, W, C); None where ONNX Runtime refuses it, or nothing is left of it."""
        entry = self.plain.get_inputs()[0]
        last = entry.shape[3] == image.shape[2]
        values = image.astype(np.float32)[None]
        try:
            (output,) = self.plain.run(
                None, {entry.name: values if last else np.ascontiguousarray(values.transpose(0, 3, 1, 2))}
            )
        except RUNTIME_ERRORS:
            return None
        if not output.size:
            return None
        return output[0].transpose(2, 0, 1) if last else output[0]

    def check(self, size: tuple[int, int], plan: str, tile: tuple[int, int] | None) -> None:
        """Run an image of ``size`` and compare."""
        channels = self.deployed.contract.image.channels
        image = np.random.default_rng(size).integers(0, 8, (*size, channels), np.uint8)
        expected, sink, case = self.one_pass(image), ArraySink(), (self.name, size, plan, tile)
        try:
            summary = self.session.segment(ArraySource(image), sink, plan=plan, tile=tile)
        except PlanError:
            of_image = self.deployed.contract.geometry.of_size(size)
            in_one_piece = (of_image.y.one_pass or of_image.x.one_pass) and plan != "whole"
            if in_one_piece or expected is None:
                return
            raise
        assert bool(summary.padded_because) == (expected is None), (case, summary.padded_because)
        if expected is None:
            pads = [(0, larger - own) for larger, own in zip(summary.domain, size, strict=True)]
            extended = self.one_pass(np.pad(image, [*pads, (0, 0)], mode="reflect"))
            assert extended is not None, case
            expected = extended[:, : sink.result.shape[-2], : sink.result.shape[-1]]
        found = sink.result.reshape(expected.shape)
        allowed = 0.0 if self.exact else ROUNDING * np.abs(expected).max()
        assert np.abs(found.astype(np.float64) - expected).max() <= allowed, case
        assert np.array_equal(found.argmax(0), expected.argmax(0)), case


@cache
def subject(name: str) -> Subject:
    return Subject(name)


def remainders(stride: int) -> list[int]:
    """All of them, or those around nothing, a half and the stride, and one between."""
    if stride <= EVERY_REMAINDER:
        return list(range(stride))
    half = stride // 2
    return [0, 1, half // 2 + 1, half - 1, half, half + 1, stride - 1]


def pairs(y: AxisGeometry, x: AxisGeometry) -> Iterator[tuple[int, int]]:
    """Every remainder along each axis, with another one along the other."""
    down, across = remainders(y.stride), remainders(x.stride)
    for index, one in enumerate(down):
        yield one, across[(3 * index + 1) % len(across)]
    yield 0, across[-1]
    yield down[-1], 0


def smallest_tile(axis: AxisGeometry) -> int:
    margin = -(-axis.margin_before // axis.stride) * axis.stride
    return axis.accepted_size(max(1, margin + axis.stride + max(0, axis.margin_after)))


def narrow(axis: AxisGeometry) -> int:
    """Two strides, or as many as the network needs."""
    return 2 * axis.stride + axis.accepted_size(1) // axis.stride * axis.stride


NAMES = [*NETS, *EXPORTS, TRAINED]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_images_of_few_strides_are_one_pass_in_every_plan(name):
    """One to three strides and a remainder: a single tile or a first and a last strip, for most networks."""
    model = subject(name)
    y, x = model.deployed.contract.geometry.y, model.deployed.contract.geometry.x
    tile = smallest_tile(y), smallest_tile(x)
    for index, (down, across) in enumerate(pairs(y, x)):
        for strides in (1, 2, 3):
            size = strides * y.stride + down, (1 + (strides + index) % 3) * x.stride + across
            for plan, shape in (("whole", None), ("tile", tile), ("strip", (y.stride, tile[1]))):
                model.check(size, plan, shape)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_images_of_several_tiles_and_strips_are_one_pass(name):
    """High and narrow, low and wide; strips in one band and in several."""
    model = subject(name)
    y, x = model.deployed.contract.geometry.y, model.deployed.contract.geometry.x
    tile = smallest_tile(y), smallest_tile(x)
    strips = model.deployed.strips
    assert strips is not None
    high = strips.startup_rows + strips.least_last_rows + 3 * y.stride
    for index, (down, across) in enumerate(pairs(y, x)):
        width, height = narrow(x) + across, tile[0] + y.stride + down
        model.check((height, width), "whole", None)
        model.check((height, width), "tile", tile)
        model.check((narrow(y) + down, tile[1] + x.stride + across), "tile", tile)
        model.check((high + down, width), "strip", (y.stride, FULL_WIDTH))
        if index % 3 == 0 or max(tile) < LARGE_PX:
            model.check((high + down, tile[1] + x.stride + across), "strip", (2 * y.stride, tile[1]))
