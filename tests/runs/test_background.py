"""Tiles that are all background are not computed; everywhere else nothing changes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.errors import OptionError
from exactile.geometry import Box, Span
from exactile.plan.background import Mask, Threshold
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile as command
from tests.support.nets import NETS, onnx_bytes, onnx_file

MEMORY = 8 << 30


def session_of(name: str, output: str = "labels") -> Session:
    network = prepare_network(onnx.load_from_string(onnx_bytes(name)), name="net")
    return Session(deploy(network, image_dtype="uint8", output=output), memory_bytes=MEMORY)


def slide(height: int, width: int) -> np.ndarray:
    """White, with a piece of tissue."""
    image = np.full((height, width, 3), 240, np.uint8)
    tissue = image[height // 3 : height // 2, width // 3 : width // 2]
    tissue[...] = np.random.default_rng(0).integers(0, 230, tissue.shape)
    return image


def segment(session: Session, image: np.ndarray, **options):
    sink = ArraySink()
    summary = session.segment(ArraySource(image), sink, **options)
    return sink.result, summary


@pytest.mark.parametrize("name", ["unet_d2", "low_resolution", "valid"])
@pytest.mark.parametrize("border", ["model", "reflect"])
@pytest.mark.parametrize("kind", ["threshold", "mask", "small mask"])
def test_only_tiles_of_background_change(name, border, kind):
    session, image = session_of(name), slide(403, 377)[..., : NETS[name].channels]
    wanted = (image < 230).any(axis=2)
    background = {
        "threshold": Threshold(value=229, beyond="above", label=7),
        "mask": Mask(wanted=wanted, image_shape=wanted.shape, label=7),
        "small mask": Mask(
            wanted=np.maximum.reduceat(np.maximum.reduceat(wanted, range(0, 403, 16)), range(0, 377, 16), 1),
            image_shape=wanted.shape,
            label=7,
        ),
    }[kind]
    options = {"border": border, "tile": (64, 64)}
    everything, _ = segment(session, image, **options)
    labels, summary = segment(session, image, background=background, **options)
    skipped = labels != everything
    assert (labels[skipped] == 7).all()
    assert summary.skipped_tiles > 5
    assert summary.skipped_pixels == np.count_nonzero(labels == 7)
    height, width = summary.tile
    assert max(height, width) < 64 + 8  # larger by less than a stride
    assert summary.computed_pixels == (summary.tiles - summary.skipped_tiles) * height * width
    scale = labels.shape[0] / wanted.shape[0]
    ys, xs = np.nonzero(wanted)
    moved = (wanted.shape[0] - round(labels.shape[0] / scale)) // 2 if border == "model" else 0
    at = ((ys - moved) * scale).astype(int), ((xs - moved) * scale).astype(int)
    inside = (at[0] >= 0) & (at[1] >= 0) & (at[0] < labels.shape[0]) & (at[1] < labels.shape[1])
    assert (labels[at[0][inside], at[1][inside]] == everything[at[0][inside], at[1][inside]]).all()


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
)
def test_a_mask_is_empty_where_no_pixel_of_it_lies_over_the_box(data, height, width, rows, columns):
    wanted = np.random.default_rng(data.draw(st.integers(0, 99))).random((rows, columns)) < 0.05
    y = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    x = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    box = Box(Span(*y), Span(*x))
    try:
        mask = Mask(wanted=wanted, image_shape=(height, width))
    except OptionError:
        return
    over = [
        wanted[r, c]
        for r in range(rows)
        for c in range(columns)
        if r * height < y[1] * rows and (r + 1) * height > y[0] * rows
        and c * width < x[1] * columns and (c + 1) * width > x[0] * columns
    ]  # fmt: skip
    if box.area:
        assert mask.is_empty(box, np.zeros((1, 1, 1))) == (not any(over))


@pytest.mark.parametrize(
    ("options", "output", "says"),
    [
        ({"plan": "strip"}, "labels", "use --plan tile"),
        ({}, "raw", "labels, not maps"),
        ({"background": Threshold(value=1, beyond="below", label=999)}, "labels", "999"),
    ],
)
def test_what_cannot_be_is_told(options, output, says):
    options = {"background": Threshold(value=229, beyond="above"), **options}
    with pytest.raises(OptionError, match=says):
        segment(session_of("unet_d2", output), slide(100, 100), **options)


def test_a_mask_of_another_view_is_refused():
    with pytest.raises(OptionError, match="does not show the same field of view"):
        Mask(wanted=np.zeros((50, 10), bool), image_shape=(100, 100))


def test_auto_takes_tiles_small_enough_to_skip():
    session, image = session_of("unet_d2"), slide(3000, 2900)
    labels, summary = segment(session, image, background=Threshold(value=229, beyond="above"))
    assert max(summary.tile) <= 1024
    assert summary.skipped_tiles >= 3
    everything, _ = segment(session, image)
    assert (labels[labels != everything] == 0).all()


def test_a_stopped_run_skips_the_same(tmp_path):
    session, image = session_of("unet_d2"), slide(403, 377)
    background = Threshold(value=229, beyond="above", label=3)
    options = {"tile": (64, 64), "background": background}
    session.segment(ArraySource(image), TiffSink(tmp_path / "whole.tif", tile=32), **options)

    class Stopping(TiffSink):
        left = 20

        def write(self, box, block):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("stop")
            super().write(box, block)

    with pytest.raises(RuntimeError, match="stop"):
        session.segment(ArraySource(image), Stopping(tmp_path / "a.tif", tile=32, resumable=True), **options)
    session.segment(ArraySource(image), TiffSink(tmp_path / "a.tif", tile=32, resumable=True), resume=True, **options)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_the_command_line_takes_a_value_or_a_mask(tmp_path):
    image = slide(403, 377)
    tifffile.imwrite(tmp_path / "slide.tif", image, photometric="rgb")
    tifffile.imwrite(tmp_path / "mask.tif", (image < 230).any(axis=2)[::4, ::4].astype(np.uint8))
    model = onnx_file(tmp_path, "unet_d2")
    found = []
    for number, spec in enumerate(["229", ">229", tmp_path / "mask.tif", "<1"]):
        done = command("run", model, tmp_path / "slide.tif", "-o", tmp_path / f"{number}.tif", "--json",
                       "--skip-background", spec, "--background-label", "2", "--tile", "64")  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["skipped_tiles"])
    assert found[0] == found[1] > 5
    assert found[2] > 5
    assert found[3] == 0
    refused = command(
        "run", model, tmp_path / "slide.tif", "-o", tmp_path / "x.tif", "--skip-background", "nowhere.png"
    )
    assert refused.returncode == 2
    assert "neither a number" in refused.stderr
