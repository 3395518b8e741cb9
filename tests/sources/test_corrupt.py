"""Chunks that cannot be decoded: by default the run fails; filled, they are reported, and the rest is as if intact."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import onnx
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import exactile
from exactile.contract import ImageStatistics
from exactile.errors import OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.damage import merge_boxes
from exactile.sources.open import open_source
from exactile.sources.tiff.source import TiffSource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile as command
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.tiff_files import SHORT, image_tags, strip_tags, tile_tags, tiles_of, write_tiff

HEIGHT, WIDTH = 208, 240
IMAGE = np.random.default_rng(5).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
ROWS, COLUMNS = 32, 48
MIDDLE = Box(Span(64, 96), Span(96, 144))
"""Row 2, column 2 of 7 x 5 tiles."""

LAYOUTS = ("deflate tiles", "jpeg tiles", "strips", "planar")
DAMAGED_BOX = dict.fromkeys(LAYOUTS, MIDDLE) | {"strips": Box(Span(64, 96), Span(0, WIDTH))}
NAMES = dict.fromkeys(LAYOUTS, r"chunk row 2, column 2 \(pixels y 64:96, x 96:144\)") | {
    "strips": r"chunk row 2, column 0 \(pixels y 64:96, x 0:240\)",
    "planar": r"chunk row 2, column 2 of plane 1 \(pixels y 64:96, x 96:144\)",
}


def deflated(part: np.ndarray) -> bytes:
    return imagecodecs.zlib_encode(part.tobytes())


def write(path: Path, layout: str, *, damaged: bool = True, also: tuple[int, ...] = ()) -> Path:
    """IMAGE, the chunk in its middle spoilt, and those numbered ``also``."""
    jpeg = layout == "jpeg tiles"
    tags = image_tags(HEIGHT, WIDTH, samples=3, compression=7 if jpeg else 8)
    if layout == "strips":
        tags |= strip_tags(ROWS)
        chunks, number = [deflated(IMAGE[y : y + ROWS]) for y in range(0, HEIGHT, ROWS)], 2
    elif layout == "planar":
        tags |= tile_tags(ROWS, COLUMNS) | {284: (SHORT, [2])}
        planes = [tiles_of(np.ascontiguousarray(IMAGE[..., c]), ROWS, COLUMNS) for c in range(3)]
        chunks, number = [deflated(tile) for plane in planes for tile in plane], len(planes[0]) + 12
    else:
        encode = (lambda tile: imagecodecs.jpeg_encode(tile, level=90, outcolorspace="rgb")) if jpeg else deflated
        tags |= tile_tags(ROWS, COLUMNS)
        chunks, number = [encode(tile) for tile in tiles_of(IMAGE, ROWS, COLUMNS)], 12
    for index in (number, *also) if damaged else ():
        chunks[index] = chunks[index][: len(chunks[index]) // 2]
    return write_tiff(path, tags, chunks)


def read(path: Path, **options) -> np.ndarray:
    with closing(TiffSource(path, **options)) as source:
        out = np.empty((source.height, source.width, source.channels), source.dtype)
        source.read(Box(Span(0, source.height), Span(0, source.width)), out)
        return out


def filled(image: np.ndarray, layout: str, value: int) -> np.ndarray:
    """``image`` as it should come, by numpy: of planes, only the damaged one is filled."""
    found = image.copy()
    found[(*DAMAGED_BOX[layout].slices(), slice(1, 2) if layout == "planar" else slice(None))] = value
    return found


@pytest.fixture(scope="module")
def model():
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet_d2")
    return deploy(network, image_dtype="uint8", output="raw", normalization=Normalization(scale=(255.0,)))


def segment(model, source, plan: str) -> tuple[np.ndarray, exactile.Summary]:
    sink = exactile.ArraySink()
    tile = (96, 100) if plan == "tile" else None
    summary = exactile.Session(model, threads=1).segment(source, sink, plan=plan, tile=tile)
    return sink.result, summary


@pytest.mark.parametrize("layout", LAYOUTS)
def test_by_default_a_damaged_chunk_fails_the_run_and_is_named(tmp_path, model, layout):
    path = write(tmp_path / "slide.tif", layout)
    with closing(open_source(path)) as source:
        with pytest.raises(SourceError, match=rf"slide\.tif: {NAMES[layout]} cannot be read: .*; the file is damaged"):
            segment(model, source, "tile")
        assert source.damaged == ()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_filled_chunks_have_the_value_and_all_others_their_pixels(tmp_path, layout, workers):
    intact = tifffile.imread(write(tmp_path / "intact.tif", layout, damaged=False))
    intact = np.moveaxis(intact, 0, 2) if layout == "planar" else intact
    path = write(tmp_path / "slide.tif", layout)
    for value in (None, 200):
        found = read(path, workers=workers, on_corrupt="fill", corrupt_value=value)
        np.testing.assert_array_equal(found, filled(intact, layout, value or 0))


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_plan_gives_the_result_of_the_filled_image_and_of_the_intact_one_beyond_the_reported_area(
    tmp_path, model, layout, plan
):
    intact = read(write(tmp_path / "intact.tif", layout, damaged=False))
    undamaged, clean = segment(model, exactile.ArraySource(intact), plan)
    expected, _ = segment(model, exactile.ArraySource(filled(intact, layout, 7)), plan)
    with closing(open_source(write(tmp_path / "slide.tif", layout), on_corrupt="fill", corrupt_value=7)) as source:
        found, summary = segment(model, source, plan)
    assert clean.damage.boxes == clean.damage.affected == ()
    assert summary.damage.boxes == (DAMAGED_BOX[layout],)
    assert summary.damage.pixels == DAMAGED_BOX[layout].area
    np.testing.assert_array_equal(found, expected)
    changed = (found != undamaged).any(axis=0)
    (affected,) = summary.damage.affected
    assert changed[affected.slices()].any()
    changed[affected.slices()] = False
    assert not changed.any()


def test_the_affected_area_is_the_box_and_the_halo_in_steps_of_the_stride(tmp_path, model):
    with closing(open_source(write(tmp_path / "slide.tif", "deflate tiles"), on_corrupt="fill")) as source:
        _, summary = segment(model, source, "whole")
    (affected,) = summary.damage.affected
    halo, stride = model.contract.geometry.y.before, model.contract.geometry.y.stride
    for found, box in ((affected.y, MIDDLE.y), (affected.x, MIDDLE.x)):
        assert box.start - halo - stride < found.start <= box.start - halo
        assert box.stop + halo <= found.stop < box.stop + halo + stride


def test_neighbouring_chunks_are_one_box_and_those_apart_two(tmp_path, model):
    path = write(tmp_path / "slide.tif", "deflate tiles", also=(13, 34))
    with closing(open_source(path, on_corrupt="fill")) as source:
        _, summary = segment(model, source, "tile")
        assert len(source.damaged) == 3
    last = Box(Span(192, 208), Span(192, 240))
    assert summary.damage.boxes == (Box(MIDDLE.y, Span(96, 192)), last)
    assert summary.damage.pixels == 32 * 96 + 16 * 48


def test_statistics_of_the_whole_image_carry_damage_everywhere(tmp_path):
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet_d2")
    normalized = deploy(
        network,
        image_dtype="uint8",
        normalization=Normalization(statistics=ImageStatistics(kind="zscore")),
        strips=False,
    )
    with closing(open_source(write(tmp_path / "slide.tif", "strips"), on_corrupt="fill")) as source:
        _, summary = segment(normalized, source, "whole")
    assert summary.damage.affected == (Box(Span(0, HEIGHT), Span(0, WIDTH)),)


def test_a_disk_that_fails_is_never_filled(tmp_path, monkeypatch):
    path = write(tmp_path / "slide.tif", "deflate tiles", damaged=False)

    def broken(*_):
        raise OSError(5, "Input/output error")

    with closing(TiffSource(path, on_corrupt="fill", workers=1)) as source:
        monkeypatch.setattr(os, "pread", broken)
        with pytest.raises(SourceError, match=r"chunk row 0, column 0 .* Input/output error"):
            source.read(Box(Span(0, 9), Span(0, 9)), np.empty((9, 9, 3), np.uint8))
        assert source.damaged == ()


def test_a_file_that_shrinks_while_it_is_read_is_never_filled(tmp_path):
    path = write(tmp_path / "slide.tif", "deflate tiles", damaged=False)
    with closing(TiffSource(path, on_corrupt="fill", workers=1)) as source:
        os.truncate(path, 100)
        with pytest.raises(SourceError, match="are needed, but the file ends"):
            source.read(Box(Span(100, 109), Span(100, 109)), np.empty((9, 9, 3), np.uint8))


def test_a_truncated_file_is_refused_whatever_is_filled(tmp_path):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, IMAGE, tile=(32, 48), compression="zlib", photometric="rgb")
    os.truncate(path, path.stat().st_size - 5)
    with pytest.raises(SourceError, match="is truncated"):
        TiffSource(path, on_corrupt="fill")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_corrupt": "skip"}, "must be one of fail, fill, got 'skip'"),
        ({"corrupt_value": 3}, "add --on-corrupt fill"),
        ({"on_corrupt": "fill", "corrupt_value": 256}, "from 0 to 255 for uint8, got 256"),
        ({"on_corrupt": "fill", "corrupt_value": -1}, "from 0 to 255"),
        ({"on_corrupt": "fill", "corrupt_value": 0.5}, "whole number"),
        ({"on_corrupt": "fill", "corrupt_value": float("nan")}, "whole number"),
    ],
)
def test_values_that_samples_cannot_have_are_refused(tmp_path, options, says):
    with pytest.raises(OptionError, match=says):
        TiffSource(write(tmp_path / "slide.tif", "strips"), **options)


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_merged_boxes_cover_the_same_pixels_once(cells):
    boxes = [Box(Span(3 * y, 3 * y + 3), Span(2 * x, 2 * x + 2)) for y, x in cells]
    wanted, found = np.zeros((18, 12), int), np.zeros((18, 12), int)
    for box in boxes:
        wanted[box.slices()] = 1
    merged = merge_boxes(boxes * 2)
    for box in merged:
        found[box.slices()] += 1
    np.testing.assert_array_equal(found, wanted)
    assert len(merged) <= len(boxes)


def test_the_command_warns_reports_and_succeeds_where_it_was_told_to_fill(tmp_path):
    network, path = onnx_file(tmp_path, "unet_d2"), write(tmp_path / "slide.tif", "deflate tiles")
    done = command("run", network, path, "-o", tmp_path / "out.tif", "--scale", "255")
    assert done.returncode == 2
    assert "chunk row 2, column 2" in done.stderr
    assert not (tmp_path / "out.tif").exists()
    arguments = ("--scale", "255", "--on-corrupt", "fill", "--corrupt-value", "255", "--no-progress")
    done = command("run", network, path, "-o", tmp_path / "out.tif", *arguments, "--json")
    assert done.returncode == 0
    damaged = json.loads(done.stdout)["damaged"]
    assert (damaged["pixels"], damaged["boxes"]) == (32 * 48, [[64, 96, 96, 144]])
    (line,) = done.stderr.splitlines()
    assert "slide.tif: 1536 pixels could not be decoded and were filled: y 64:96, x 96:144" in line
    top, left, bottom, right = damaged["affected_result"][0]
    assert f"do not trust the result in y {top}:{bottom}, x {left}:{right}" in line
    done = command("run", network, path, "-o", tmp_path / "two.tif", *arguments)
    assert "damaged  1536 pixels filled: y 64:96, x 96:144" in done.stdout
