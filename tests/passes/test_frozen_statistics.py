"""Fixed statistics that are written into a network: an ordinary bundle, equal to a run with them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import exactile
from exactile.errors import OptionError, VerificationError
from exactile.passes.fixed import FixedStatistics
from exactile_converters.convert import convert
from exactile_converters.networks.normalization import Normalization
from exactile_converters.passes.fixed import freeze
from tests.passes.test_passes import image_of
from tests.runs.test_fixed_statistics import (
    OTHER_SIZE,
    SIZE,
    cache_folder,
    command,
    deployed,
    folder,
    measured,
    near,
    network,
    segment,
    without_statistics,
)
from tests.support.global_nets import BLOCKS, chain

__all__ = ["cache_folder", "folder"]


@pytest.mark.parametrize("block", BLOCKS)
def test_both_ways_give_statistics_the_same_names(block):
    """Those that passes find are those that are frozen."""
    found = deployed(chain(block))
    values = {
        name: np.full(shape, 0.5, np.float32)
        for level in found.levels
        for one in level.statistics
        for name, shape in zip(one.inputs, one.shapes, strict=True)
    }
    statistics = FixedStatistics(
        values=values, model="net", belongs_to=found.statistics_key, images=("image",), pixels=1
    )
    again = network(chain(block))
    frozen = freeze(again, statistics, image_dtype="uint8", normalization=Normalization())
    assert frozen.trace().geometry is not None
    assert again.trace().geometry is None, "the network is not as it was"


@pytest.mark.parametrize("block", ["group_norm_operator", pytest.param("instance_norm", marks=pytest.mark.slow)])
def test_a_bundle_with_frozen_statistics_gives_the_same(tmp_path, block):
    """An ordinary one: no passes, any border, no input for statistics; a note tells."""
    model, images, third = chain(block), [image_of(SIZE), image_of(OTHER_SIZE)], image_of((50, 45))
    (tmp_path / "net.onnx").write_bytes(model)
    found = deployed(model)
    statistics = measured(found, *images)
    made = convert(tmp_path / "net.onnx", tmp_path / "net.bundle", output="raw", statistics=statistics)
    frozen = exactile.open_bundle(tmp_path / "net.bundle").model
    assert frozen.levels == ()
    assert any("2 images, 4417 px, measured with global.onnx" in note for note in made.file.notes)
    for options in ({"plan": "whole"}, {"plan": "tile", "tile": (40, 37)}, {"plan": "strip"}, {"border": "reflect"}):
        near(segment(frozen, third, **options)[0], segment(found, third, statistics, **options)[0])
    with pytest.raises(OptionError, match="takes no statistics"):
        segment(frozen, third, statistics)


def test_what_is_not_frozen(folder, tmp_path):
    """Another network, another normalisation, a network without statistics, a bundle; nothing is left behind."""
    model, file, bundle = folder / "net.onnx", tmp_path / "s.json", tmp_path / "net.bundle"
    command("measure", model, folder / "in", "-o", file, "--scale", 255, "--no-verify")
    freeze = ("-o", bundle, "--freeze-statistics", file, "--no-verify")
    (tmp_path / "plain.onnx").write_bytes(without_statistics())
    command("convert", model, *freeze, fails="measured with net.onnx, are not those of")
    command("convert", model, *freeze, "--scale", 255, "--dtype", "uint16", fails="measured with net.onnx")
    command("convert", folder / "other.onnx", *freeze, "--scale", 255, fails="another network")
    command("convert", tmp_path / "plain.onnx", *freeze, fails="takes no statistics")
    assert not bundle.exists()
    told = command("convert", model, *freeze, "--scale", 255)
    assert any("of s.json: 2 images, 7106 px, measured with net.onnx" in note for note in told["notes"])
    command("convert", bundle, "--engine", "tensorrt", "--freeze-statistics", file, fails="--freeze-statistics would")
    images = (folder / "in" / "0.tif", "-o")
    command("run", bundle, *images, tmp_path / "1.tif")
    command("run", model, *images, tmp_path / "2.tif", "--scale", 255, "--statistics", file, "--no-verify")
    frozen, fixed = (tifffile.imread(tmp_path / name) for name in ("1.tif", "2.tif"))
    assert np.mean(frozen != fixed) < 1e-3


def test_operators_that_are_wrong_are_found_before_they_are_frozen(tmp_path, monkeypatch):
    """Passes are held against one pass, for which statistics are not fixed yet."""
    (tmp_path / "net.onnx").write_bytes(chain("instance_norm"))
    statistics = measured(deployed(chain("instance_norm")), image_of(SIZE))
    monkeypatch.setattr("exactile.plan.zones.TO_THE_END", 8)
    with pytest.raises(VerificationError, match="would not equal one pass"):
        convert(tmp_path / "net.onnx", tmp_path / "net.bundle", output="raw", statistics=statistics)
