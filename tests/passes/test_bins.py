"""Adaptive pooling to a grid of bins: statistics of the whole image, found in passes; against plain ONNX Runtime."""

from __future__ import annotations

import io
import json
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

import exactile
import exactile_converters.exporters.torch_bins as written
from exactile.contract.statistic import Statistic
from exactile.errors import NotTileableError
from exactile.passes.merge import Merged
from exactile_converters.convert import convert
from exactile_converters.passes.reductions import take_out
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
from tests.passes.test_passes import check, deployed, image_of, one_pass, segment, small_tile

POOLS = {"mean": nn.AdaptiveAvgPool2d, "maximum": nn.AdaptiveMaxPool2d}


class Pyramid(nn.Module):
    """As PSPNet: bins, a convolution of each grid, resized to the map that they are taken of."""

    def __init__(self, kind: str = "mean", grids: tuple[object, ...] = (1, 2, 3, 6), *, align: bool = True) -> None:
        super().__init__()
        self.align = align
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU())
        self.second = nn.Conv2d(4, 5, 3, padding=1, stride=2)
        self.stages = nn.ModuleList(self.stage(POOLS[kind](grid), grid) for grid in grids)
        self.last = nn.Conv2d(5 + 2 * len(grids), 4, 3, padding=1)

    @staticmethod
    def stage(pool: nn.Module, grid: object) -> nn.Module:
        return nn.Sequential(pool, nn.Conv2d(5, 2, 1), *([] if grid == 1 else [nn.BatchNorm2d(2)]), nn.ReLU())

    def resized(self, value: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return functional.interpolate(value, size=size, mode="bilinear", align_corners=self.align)

    def pyramid(self, found: torch.Tensor) -> torch.Tensor:
        parts = [self.resized(stage(found), found.shape[2:]) for stage in self.stages]
        return self.last(torch.cat([found, *parts], 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.resized(self.pyramid(self.second(self.first(image))), image.shape[2:])


class Unified(Pyramid):
    """As UPerNet: the pyramid on top, added to a finer map."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = self.first(image)
        return self.resized(fine + self.resized(self.pyramid(self.second(fine)), fine.shape[2:]), image.shape[2:])


class Whole(nn.Module):
    """Small whole numbers, and maps resized by picking: nothing is rounded but means."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 3, padding=1, stride=2), nn.Conv2d(2, 3, 1)
        random = np.random.default_rng(2)
        for layer in (self.first, self.last):
            layer.weight.data = torch.from_numpy(random.integers(-3, 4, tuple(layer.weight.shape)).astype(np.float32))
            layer.bias.data.zero_()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.first(image)
        for pool, grid in ((functional.adaptive_avg_pool2d, (3, 5)), (functional.adaptive_max_pool2d, (4, 2))):
            found = found + functional.interpolate(torch.floor(pool(found, grid)), size=found.shape[2:], mode="nearest")
        return self.last(found)


def exported(net: nn.Module, exporter: str = "torchscript") -> bytes:
    buffer = io.BytesIO()
    export_onnx(net, buffer, 1, exporter=exporter)
    return buffer.getvalue()


@cache
def seeded(kind: type[nn.Module], *options: object, exporter: str = "torchscript", **others: object) -> bytes:
    torch.manual_seed(0)
    return exported(kind(*options, **others), exporter)


def found_in(model: bytes):
    return take_out(prepare_network(onnx.load_from_string(model), name="bins.onnx"))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_pyramid_of_bins_is_exact(exporter):
    """Whole, in tiles and strips, with kept maps and without, at a size that no grid divides."""
    grids = (1, 2, 3, 6) if exporter == "torchscript" else (3, 6)  # dynamo takes its time
    model = seeded(Pyramid, "mean", grids, exporter=exporter)
    network, reductions = found_in(model)
    assert [(one.kind, one.grid) for one in reductions] == [("mean", (bins, bins)) for bins in grids]
    assert not network.trace().obstacles
    check(model, (75, 61))
    assert deployed(model, (75, 61)).strips is not None


def test_a_pyramid_below_a_finer_map_is_exact():
    """Of another number of rows than columns; corners not aligned."""
    check(seeded(Unified, "mean", ((2, 3), (1, 4)), align=False), (75, 61))


def test_maxima_of_bins_are_exact():
    model = seeded(Pyramid, "maximum", (2, (5, 3)))
    assert [(one.kind, one.grid) for one in found_in(model)[1]] == [("maximum", (2, 2)), ("maximum", (5, 3))]
    check(model, (61, 50))


@pytest.mark.parametrize("size", [(40, 33), (24, 60)])
def test_whole_numbers_are_equal_bit_for_bit(size):
    check(seeded(Whole), size, tolerance=0)


def test_one_model_for_every_size():
    """Small ones, too, whose bins share rows."""
    model = seeded(Pyramid, "mean", (2, 6))
    found = deployed(model, None)
    for size in ((66, 47), (9, 13)):
        image = image_of(size)
        expected = one_pass(model, image)
        for plan, tile in (("whole", None), ("tile", small_tile(found, size))):
            result, _ = segment(found, image, plan, tile)
            np.testing.assert_allclose(result, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_a_bundle_of_a_pyramid(tmp_path):
    """A module becomes a bundle that gives what one pass gives, at another size than it was exported at."""
    torch.manual_seed(0)
    net = Pyramid("mean", ((2, 3),))
    convert(net, tmp_path / "pyramid.bundle", output="raw", tile=(64, 64), example_shape=(1, 1, 64, 64), verify=False)
    contract = json.loads((tmp_path / "pyramid.bundle" / "contract.json").read_text())
    assert [one["grid"] for level in contract["levels"] for one in level["statistics"]] == [[2, 3]]
    image, model = image_of((90, 77)), exactile.open_bundle(tmp_path / "pyramid.bundle").model
    expected = one_pass(exported(net), image)
    for plan, tile in (("whole", None), ("tile", (64, 64)), ("strip", None)):
        result, _ = segment(model, image, plan, tile)
        assert np.abs(result - expected).max() <= 3e-6 * np.abs(expected).max(), plan


def other_mask(kind: str):
    """Bins that are nearly those of adaptive pooling."""

    def mask(length: int, bins: int) -> torch.Tensor:
        at, index = torch.arange(length), torch.arange(bins)[:, None]
        starts = index * length < (at + 1) * bins
        ends = at * bins < (index + 1) * length
        match kind:
            case "apart":  # each row in one bin alone
                return (index * length <= at * bins) & ends
            case "upside down":
                return (starts & ends).flip(0)
            case "fixed size":  # right up to 40 rows
                return starts & ends & (at < 40)
            case "by the size of something else":
                return starts & (at * bins < (index + 1) * (length + length // 30))
        raise AssertionError(kind)

    return mask


@pytest.mark.parametrize("kind", ["apart", "upside down", "fixed size", "by the size of something else"])
def test_other_bins_stay_an_obstacle(kind, monkeypatch):
    monkeypatch.setattr(written, "bin_mask", other_mask(kind))
    model = exported(Pyramid("mean", (3,)))
    assert found_in(model)[1] == ()
    with pytest.raises(NotTileableError, match="ReduceSum"):
        deployed(model, (40, 52))


def changed(model: bytes, change) -> bytes:
    proto = onnx.load_from_string(model)
    change({node.output[0]: node for node in proto.graph.node}, proto.graph)
    return proto.SerializeToString()


def swap_bins(_nodes, graph):
    """The first bin takes the place of the second."""
    joined = next(node for node in graph.node if node.op_type == "Concat" and len(node.input) == 3)
    joined.input[0], joined.input[1] = joined.input[1], joined.input[0]


def count_more(nodes, graph):
    """Divided by other numbers than pixels."""
    divided = next(node for node in graph.node if node.op_type == "Div")
    counted = nodes[divided.input[1]]
    counted.op_type = "Add"


def fill_with_ones(nodes, graph):
    """What is not in a bin counts."""
    for node in graph.node:
        if node.op_type == "Where":
            outside = nodes[node.input[2]].attribute[0].t
            outside.CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.float32)))


@pytest.mark.parametrize("change", [swap_bins, count_more, fill_with_ones])
def test_what_is_nearly_a_mean_of_bins_stays_an_obstacle(change):
    model = seeded(Pyramid, "mean", (3,))
    assert len(found_in(model)[1]) == 1
    assert found_in(changed(model, change))[1] == ()


def test_merged_bins_are_those_of_pytorch():
    """Of zones that bins lie across, some without a pixel of a bin; a zone may have nothing of it."""
    values = np.random.default_rng(1).normal(size=(2, 13, 9)).astype(np.float32)
    grid = (4, 2)
    kinds = {"mean": functional.adaptive_avg_pool2d, "maximum": functional.adaptive_max_pool2d}
    for kind, pool in kinds.items():
        one = Statistic(kind=kind, channels=2, groups=2, inputs=("s",), shapes=((1, 2, *grid),), grid=grid)
        merged = Merged([one])
        for rows in ((0, 5), (5, 6), (6, 13)):
            pixels, numbers = np.zeros(8), np.full((2, 8), -np.inf if kind == "maximum" else 0.0)
            for bin_ in range(8):
                i, j = divmod(bin_, 2)
                first, last = max(rows[0], i * 13 // 4), min(rows[1], -(-(i + 1) * 13 // 4))
                part = values[:, first:last, j * 9 // 2 : -(-(j + 1) * 9 // 2)].reshape(2, -1).astype(np.float64)
                if last > first:
                    pixels[bin_] = part.shape[1]
                    numbers[:, bin_] = part.max(1) if kind == "maximum" else part.sum(1)
            assert one.numbers == pixels.size + numbers.size
            merged.add(np.concatenate([pixels, numbers.ravel()]))
        expected = pool(torch.from_numpy(values)[None].double(), grid).numpy()
        np.testing.assert_allclose(merged.values()["s"], expected, rtol=1e-7)


def test_a_grid_is_for_means_and_maxima_of_channels():
    with pytest.raises(ValueError, match="for the mean or maximum"):
        Statistic(kind="moments", channels=2, groups=2, inputs=("m",), shapes=((1, 2, 2, 2),), grid=(2, 2))
