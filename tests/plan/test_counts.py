"""What a run costs in numbers that no machine changes: a plan, a graph or a loop that does more work fails here.

Figures were worked out on paper where a comment says how; the others are those of the day, to be lowered only.
"""

from __future__ import annotations

import tracemalloc
from functools import cache
from math import ceil, prod

import numpy as np
import onnx
import pytest
import tifffile

from exactile import ArraySink, ArraySource, Session, open_source
from exactile.contract import DeployedModel
from exactile.plan.budget import INPUT_SLOTS, OUTPUT_SLOTS
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.sources.protocol import ReadCount
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import onnx_bytes

SLIDE = (8192, 8192)


@cache
def deployed(name: str) -> DeployedModel:
    return deploy(prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name), image_dtype="uint8")


def macs(model: bytes, sizes: dict[str, int]) -> int:
    """Multiply-accumulates of convolutions, counted from the shapes that ONNX itself infers."""
    proto = onnx.load_from_string(model)
    for value in proto.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type in {"Conv", "ConvTranspose"}:
            positions = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]][2:]
            assert all(positions), f"{node.name} has no known size"
            total += prod(shapes[node.input[1]]) * prod(positions)
    return total


@pytest.mark.parametrize(
    ("name", "tile", "side"),
    [
        ("unet_d4", 512, 25),  # 96 px in front, 94 and what is left to 16 behind: 320 px further; 1 + 7680 / 320
        ("unet_d4", 1024, 10),  # 96 and 96: 832 px further: 1 + ceil(7168 / 832)
        ("unet_d2", 1024, 9),  # 24 and 24: 976 px further: 1 + ceil(7168 / 976)
        ("fc_densenet56", 1152, 21),  # 416 and 384: 352 px further: 1 + 7040 / 352
        ("resnet_unet", 1024, 12),  # 192 and 160: 672 px further: 1 + ceil(7168 / 672)
    ],
)
def test_a_tile_plan_has_no_tile_too_many(name, tile, side):
    """And all of them are computed once: pixels computed follow."""
    geometry = deployed(name).contract.geometry
    plan = TilePlan.of(geometry, SLIDE, "model", (tile, tile))
    assert len(plan) == side**2
    assert plan.computed_pixels == len(plan) * tile**2
    assert plan.wanted_pixels == SLIDE[0] * SLIDE[1]


@pytest.mark.parametrize("name", ["unet_d4", "unet_bilinear_d4", "fc_densenet56", "segnet", "resnet_unet"])
def test_strips_compute_every_row_of_input_once(name):
    model = deployed(name)
    plan = StripPlan.of(model.contract.geometry, model.strips, SLIDE, "model", rows=128, band=SLIDE[1])
    assert plan.computed_pixels == plan.wanted_pixels == SLIDE[0] * SLIDE[1]
    assert [step.tile.y.start for step in plan][1:] == [step.tile.y.stop for step in plan][:-1]


@pytest.mark.parametrize(
    ("name", "most", "whole"),
    [
        ("unet_d2", 212_135_936, 204_996_608),
        ("unet_d4", 392_376_320, 383_254_528),
        ("unet_bilinear_d4", 453_292_032, 441_974_784),
        ("fc_densenet56", 535_480_320, 519_453_696),
        ("segnet", 91_115_008, 86_507_520),
        ("resnet_unet", 86_061_056, 84_344_832),
    ],
)
def test_a_body_strip_multiplies_hardly_more_than_its_rows_of_a_whole_pass(name, most, whole):
    """Multiply-accumulates for 128 x 256 pixels: 2 to 5 % more, where carrying everything costs more in copies."""
    model, sizes = deployed(name), {"height": 128, "width": 256}
    carried = {carry.width_name: carry.columns_at(256) for carry in model.strips.carries}
    assert macs(model.graph, sizes) == whole
    assert macs(model.strips.graphs["body"].graph, sizes | carried) <= most


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("unet_d2", 995_328),
        ("unet_d4", 6_008_832),
        ("unet_bilinear_d4", 6_959_104),
        ("fc_densenet56", 61_314_048),
        ("segnet", 331_776),
        ("resnet_unet", 1_907_712),
    ],
)
def test_carries_take_no_more_bytes_than_they_did(name, most):
    """One set, for strips of 1024 columns."""
    assert deployed(name).strips.carry_bytes(1024) <= most


@pytest.mark.parametrize(("plan", "tile"), [("tile", (192, 192)), ("strip", (64, 500))])
def test_every_stored_chunk_is_decoded_once(tmp_path, plan, tile):
    """Whatever the halo and the order of tiles."""
    image = np.random.default_rng(0).integers(0, 256, (700, 500, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(64, 64), compression="zlib", photometric="rgb")
    source = open_source(tmp_path / "image.tif")
    summary = Session(deployed("unet_d2"), memory_bytes=4 << 30).segment(source, ArraySink(), plan=plan, tile=tile)
    source.close()
    assert summary.tiles > 6
    assert summary.chunks.chunks_stored == ceil(700 / 64) * ceil(500 / 64)
    assert summary.chunks.chunks_decoded == summary.chunks.chunks_stored


@pytest.mark.parametrize(("plan", "tile"), [("tile", (128, 128)), ("strip", (32, 240))])
def test_buffers_are_made_once_and_not_for_every_tile(monkeypatch, plan, tile):
    """Four times as many tiles make as many large arrays."""
    assert large_arrays(monkeypatch, plan, tile, 4000) == large_arrays(monkeypatch, plan, tile, 1000) > 0


def large_arrays(monkeypatch, plan, tile, height) -> int:
    """Arrays of more than a quarter of a tile that one run makes, but for the result, which grows with the image."""
    made, result_bytes = [], height * 240
    with monkeypatch.context() as patch:
        for function in ("empty", "zeros", "ones", "full"):
            patch.setattr(np, function, counting(getattr(np, function), made))
        source = ArraySource(np.random.default_rng(0).integers(0, 256, (height, 240, 3), dtype=np.uint8))
        Session(deployed("unet_d2"), memory_bytes=4 << 30).segment(source, ArraySink(), plan=plan, tile=tile)
    return sum(prod(tile) * 3 / 4 <= nbytes != result_bytes for nbytes in made)


def counting(function, made: list[int]):
    def counted(*arguments, **options):
        array = function(*arguments, **options)
        made.append(array.nbytes)
        return array

    return counted


class Plain:
    """A source of one colour that keeps nothing."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width, self.channels, self.dtype = height, width, 3, np.dtype(np.uint8)
        self.pixel_size_um = None

    def cache_bytes(self, _plan) -> int:
        return 0

    def prepare(self, _plan, *, cache_bytes) -> None: ...

    def read(self, _box, out) -> None:
        out[...] = 7

    def count(self) -> ReadCount:
        return ReadCount(chunks_decoded=0, chunks_stored=0)

    def identity(self) -> dict:
        return {}

    def close(self) -> None: ...


@pytest.mark.parametrize(("plan", "tile"), [("tile", (512, 512)), ("strip", (256, 1024))])
def test_a_tile_is_inferred_and_cropped_without_copies(plan, tile):
    """At any time there are the slots, the labels, and less than a tile's labels."""
    session = Session(deployed("unet_d1_rgb"), memory_bytes=4 << 30, keep_engine=True, lanes=1)
    session.segment(Plain(1024, 1024), ArraySink(), plan=plan, tile=tile)  # opens the engine
    slots_bytes, labels_bytes = prod(tile) * (3 * INPUT_SLOTS + OUTPUT_SLOTS), 2048 * 1024
    tracemalloc.start()  # numpy tells it of its arrays
    try:
        session.segment(Plain(2048, 1024), ArraySink(), plan=plan, tile=tile)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        session.close()
    assert peak - slots_bytes - labels_bytes < prod(tile) // 2
