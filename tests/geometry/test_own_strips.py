"""Strips for each size that a network takes: the graphs that serve several sizes are those built for each alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from exactile_converters.cleanup.explicit_windows import write_windows
from exactile_converters.graphs.io import Normalization, ResultWish, wrap
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.strips import own_sizes
from exactile_converters.strips.build import build_strips
from tests.geometry.test_own_sizes import network, one_pass
from tests.support.command import exactile
from tests.support.nets import onnx_bytes


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
    prepared = prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name)
    traced = prepared.with_own_sizes(prepared.trace())
    geometry = traced.geometry
    write_windows(traced)
    wrapped = wrap(
        prepared,
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


def test_run_builds_the_strips_that_depend_on_the_size(tmp_path):
    """Too many pairs of remainders for strips of each: those for the image's size are built once it is known."""
    layers = (("Conv", {"kernel_shape": [7, 7], "strides": [5, 5], "auto_pad": "SAME_LOWER"}),)
    model = network(layers)
    (tmp_path / "net.onnx").write_bytes(model)
    images = {size: np.random.default_rng(size).integers(0, 8, (*size, 1), np.uint8) for size in ((93, 71), (90, 77))}
    for (height, _), image in images.items():
        np.save(tmp_path / f"{height}.npy", image)
    options = ("--plan", "strip", "--output", "raw", "-o", f"{tmp_path / 'out'}/", "--format", ".npy", "--no-verify")
    done = exactile("run", tmp_path / "net.onnx", *(tmp_path / f"{height}.npy" for height, _ in images), *options)
    assert done.returncode == 0, done.stderr
    for (height, _), image in images.items():
        assert np.array_equal(np.load(tmp_path / "out" / f"{height}.npy"), one_pass(model, image))
