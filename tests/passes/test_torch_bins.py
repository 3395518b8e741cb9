"""Adaptive pooling to a grid of bins, as the export from PyTorch writes it, against PyTorch."""

from __future__ import annotations

import io

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from exactile_converters.exporters.torch_bins import bin_maxima, bin_means, bins_of_any_size
from exactile_converters.readers.from_torch import from_module
from exactile_converters.torch_export import export_onnx

POOLS = {"mean": nn.AdaptiveAvgPool2d, "maximum": nn.AdaptiveMaxPool2d}


class Pooled(nn.Module):
    """A network whose bins are resized to the map that they are taken of."""

    def __init__(self, kind: str, grids: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.pools = nn.ModuleList(POOLS[kind](grid) for grid in grids)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.first(image)
        for pool in self.pools:
            more = functional.interpolate(pool(found), size=found.shape[2:], mode="bilinear", align_corners=False)
            found = found + more
        return found


def random_map(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("rows", range(1, 8))
def test_bins_are_those_of_pytorch(rows):
    """For every length, shorter than the grid, too."""
    for length in range(1, 24):
        found = random_map(1, 2, length, 9)
        for grid in ((rows, 4), (rows, 1)):
            mean, most = functional.adaptive_avg_pool2d(found, grid), functional.adaptive_max_pool2d(found, grid)
            torch.testing.assert_close(bin_means(found, grid), mean, rtol=1e-5, atol=1e-6)
            assert torch.equal(bin_maxima(found, grid), most)


def test_what_is_infinite_stays_in_its_bins():
    found = random_map(1, 1, 8, 8)
    found[0, 0, 1, 6] = torch.inf
    assert torch.isinf(bin_means(found, (2, 2))).tolist() == [[[[False, True], [False, False]]]]
    assert torch.equal(bin_maxima(found, (3, 3)), functional.adaptive_max_pool2d(found, 3))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", POOLS)
def test_the_exported_graph_is_right_for_every_size(kind, exporter):
    grids = ((2, 2), (3, 5), (1, 1), (1, 6)) if exporter == "torchscript" else ((2, 3),)  # dynamo takes its time
    net = Pooled(kind, grids).eval()
    buffer = io.BytesIO()
    export_onnx(net, buffer, 2, exporter=exporter)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    for size in ((64, 64), (65, 93), (7, 12), (3, 2), (203, 181)):
        image = random_map(1, 2, *size)
        with torch.inference_mode():
            expected = net(image).numpy()
        np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], expected, rtol=1e-5, atol=1e-5)


def test_pytorch_is_as_it_was():
    before = functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d
    with bins_of_any_size():
        assert functional.adaptive_avg_pool2d is not before[0]
    with pytest.raises(KeyError), bins_of_any_size():
        raise KeyError
    assert (functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d) == before


def test_pools_that_are_no_grid_are_left_to_the_exporter():
    """The whole map; sides that are kept; indices of maxima; an image without a batch."""
    found = random_map(1, 2, 8, 6)
    calls = [
        lambda: functional.adaptive_avg_pool2d(found, 1),
        lambda: functional.adaptive_avg_pool2d(found, (None, 3)),
        lambda: functional.adaptive_avg_pool2d(found[0], 2),
        lambda: functional.adaptive_max_pool2d(found, 2, return_indices=True)[1],
    ]
    expected = [call() for call in calls]
    with bins_of_any_size():
        assert all(torch.equal(call(), one) for call, one in zip(calls, expected, strict=True))


def test_a_module_with_bins_is_converted():
    """At sizes that its grid does not divide; compared with PyTorch by the conversion."""
    exported = from_module(Pooled("mean", ((3, 3), (6, 6))), size=(64, 80), name="pooled")
    assert exported.network.channels == 2
    assert 0 < exported.agreement.max_abs < 1e-5
