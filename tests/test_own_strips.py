"""Strips for each size that a network takes: the graphs that serve several sizes are those built for each alone."""

from __future__ import annotations

import onnx
import pytest

from exactile_converters.explicit_windows import write_windows
from exactile_converters.from_onnx import prepare_network
from exactile_converters.graphs.io import Normalization, ResultWish, wrap
from exactile_converters.strips import own_sizes
from exactile_converters.strips.build import build_strips
from tests.nets import onnx_bytes


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("low_resolution", 3, 1),
        ("valid", 1, 1),
        pytest.param("resnet_unet", 31, 31, marks=pytest.mark.slow),
        pytest.param("segnet", 17, 30, marks=pytest.mark.slow),
    ],
)
def test_graphs_that_serve_other_sizes_are_those_built_for_them(name, rows, columns):
    network = prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name)
    traced = network.with_own_sizes(network.trace())
    geometry = traced.geometry
    write_windows(traced)
    wrapped = wrap(
        network,
        traced.features,
        image_dtype="uint8",
        normalization=Normalization(),
        wish=ResultWish(kind="labels", map_dtype=None, threshold=None, activation=None),
    )
    base = build_strips(wrapped, traced.sizes, geometry.y.remainder)
    served, others = own_sizes.strips_for_own_sizes(wrapped, traced.sizes, geometry, base, None)
    assert not others
    for height, width in ((rows, None), (None, columns), (rows, columns)):
        found = served.at(height, width)
        sizes = own_sizes._shifted(traced.sizes, geometry, height or 0, width or 0)
        alone = build_strips(wrapped, sizes, height or 0, like=base)
        assert {role: graph.graph for role, graph in found.graphs.items()} == {
            role: graph.graph for role, graph in alone.graphs.items()
        }
        assert (found.carries, found.lag, found.startup_rows) == (alone.carries, alone.lag, alone.startup_rows)
        assert found.least_last_rows == alone.least_last_rows
    assert served.at(rows + 100, None) is None
