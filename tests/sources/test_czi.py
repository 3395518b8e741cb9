"""Zeiss CZI files: scenes, mosaics, channels, planes and levels, with exactly pylibCZIrw's pixels."""

from __future__ import annotations

import itertools
import json
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pylibCZIrw import czi

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.czi.places import Places, TileGrid, covered_pixels
from exactile.sources.czi.source import CziSource
from exactile.sources.listing import find_images
from exactile.sources.nodata import nodata_rule
from exactile.sources.open import open_source
from exactile.sources.protocol import ReadPlan
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.czi_files import SCALING, Block, jpegxr, write_czi
from tests.support.nets import onnx_bytes
from tests.support.source_pixels import all_pixels

REAL = Path("napari_czann_segment") / "_data"
"""Where the wheel napari-czann-segment 0.1.2 has images of ZEN."""


def pixels(height: int, width: int, dtype: str = "uint8", channels: int = 1, seed: int = 0) -> np.ndarray:
    """(H, W) or (H, W, 3): noise, red first."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return (np.random.default_rng(seed).random(shape) * {"uint8": 250, "uint16": 60000, "float32": 3}[dtype]).astype(
        dtype
    )


def whole(path: Path, **options) -> np.ndarray:
    """The oracle: what the library reads in one piece, (H, W, C), red first."""
    with czi.open_czi(str(path)) as reader:
        found = np.array(reader.read(**options))
    return found[..., ::-1]


def written(path: Path, *tiles: tuple[np.ndarray, dict], scale_m: float | None = None, **options) -> Path:
    """A file by the library's own writer: arrays, red first, with what its ``write`` takes."""
    with czi.create_czi(str(path), exist_ok=True, **options) as writer:
        for tile, at in tiles:
            writer.write(np.ascontiguousarray(tile[..., ::-1] if tile.ndim == 3 else tile), **at)
        if scale_m is not None:
            writer.write_metadata("image", scale_x=scale_m, scale_y=2 * scale_m)
    return path


def read(source, box: Box) -> np.ndarray:
    out = np.full((*box.shape, source.channels), 77, source.dtype)
    source.read(box, out)
    return out


def opened(path: Path, **options) -> np.ndarray:
    with closing(open_source(path, **options)) as source:
        assert isinstance(source, CziSource)
        return all_pixels(source)


def boxes_of(height: int, width: int) -> list[Box]:
    return [
        Box(Span(0, height), Span(0, width)),
        Box(Span(height // 3, height - 5), Span(7, width // 2)),
        Box(Span(height - 1, height), Span(0, width)),
        Box(Span(0, height), Span(width - 1, width)),
        Box(Span(5, 5), Span(0, width)),
    ]


def tiled(image: np.ndarray, rows: int, columns: int, **options) -> list[Block]:
    """``image`` as sub-blocks side by side."""
    return [
        Block(pixels=image[y : y + rows, x : x + columns], x=x, y=y, **options)
        for y in range(0, image.shape[0], rows)
        for x in range(0, image.shape[1], columns)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("czi")


@pytest.fixture(scope="module")
def mosaic(folder):
    """Two channels, of sub-blocks that overlap, begin at negative coordinates and leave a gap."""
    tiles = []
    for channel, row, column in itertools.product(range(2), range(4), range(5)):
        if (row, column) == (2, 3):
            continue
        tile = pixels(120, 100, "uint16", seed=100 * channel + 10 * row + column)
        place = (-250 + 90 * column + 3 * row, -33 + 107 * row - 2 * column)
        tiles.append((tile, {"location": place, "plane": {"C": channel}}))
    return written(folder / "mosaic.czi", *tiles, scale_m=0.25e-6)


@pytest.fixture(scope="module")
def pyramid(folder):
    """Levels of 96 x 128 pixels and half of that, of which the library reads some a pixel beside their place."""
    image = pixels(96, 128)
    blocks = [
        *(Block(pixels=b.pixels, x=b.x - 7, y=b.y + 3, at={"M": n}) for n, b in enumerate(tiled(image, 32, 32))),
        *(Block(pixels=b.pixels, x=2 * b.x - 7, y=2 * b.y + 3, scale=2) for b in tiled(image[::2, 1::2], 24, 20)),
    ]
    return write_czi(folder / "pyramid.czi", blocks, metadata=SCALING.format(x=5e-7, y=5e-7))


@pytest.mark.parametrize("compression", ["uncompressed:", "zstd0:ExplicitLevel=1", "zstd1:ExplicitLevel=1"])
@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 1), ("uint16", 1), ("float32", 1), ("uint8", 3), ("uint16", 3)]
)
def test_pixels_are_those_that_were_written_red_first(tmp_path, dtype, channels, compression):
    image = pixels(70, 90, dtype, channels)
    path = written(tmp_path / "a.czi", (image, {}), compression_options=compression)
    with closing(open_source(path)) as source:
        assert (source.height, source.width, source.channels, source.dtype) == (70, 90, channels, image.dtype)
        for box in boxes_of(70, 90):
            np.testing.assert_array_equal(read(source, box), np.atleast_3d(image)[box.slices()])
        assert source.metadata.notes == ()


@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 1), ("uint16", 1), ("float32", 1), ("uint8", 3), ("uint16", 3)]
)
def test_jpeg_xr_is_read(tmp_path, dtype, channels):
    image = pixels(70, 90, dtype, channels)
    path = write_czi(tmp_path / "a.czi", [Block(pixels=image, compression="jpegxr")])
    np.testing.assert_array_equal(opened(path), whole(path))
    # That of floats is not lossless.
    np.testing.assert_allclose(opened(path), np.atleast_3d(image), rtol=0, atol=2e-4 if dtype == "float32" else 0)


def test_zstd_with_packed_bytes_is_read_where_the_library_reads_it_rightly(tmp_path):
    grey, colours = pixels(70, 90, "uint16"), pixels(70, 90, "uint16", 3)
    path = write_czi(tmp_path / "grey.czi", [Block(pixels=grey, compression="packed")])
    np.testing.assert_array_equal(opened(path)[..., 0], grey)
    path = write_czi(tmp_path / "colours.czi", [Block(pixels=colours, compression="packed")])
    assert np.any(whole(path) != colours)
    with pytest.raises(SourceError, match=r"colours\.czi: .*packed by halves, and pylibCZIrw reads .* wrongly"):
        opened(path)


def test_a_mosaic_is_what_the_library_makes_of_it_in_every_box_and_with_threads(mosaic):
    expected = np.concatenate([whole(mosaic, plane={"C": channel}) for channel in range(2)], axis=2)
    for workers in (1, 3):
        with closing(open_source(mosaic, workers=workers)) as source:
            assert source.dtype == np.uint16
            assert source.pixel_size_um == pytest.approx((0.5, 0.25))
            for box in boxes_of(*expected.shape[:2]):
                np.testing.assert_array_equal(read(source, box), expected[box.slices()])


def test_pixels_in_no_sub_block_are_0_and_have_no_data(mosaic):
    with closing(open_source(mosaic)) as source:
        image = all_pixels(source)
        with closing(nodata_rule(source)) as rule:
            everything = Box(Span(0, source.height), Span(0, source.width))
            bare = rule.where(everything, image)
            part = Box(Span(200, 341), Span(77, 300))
            np.testing.assert_array_equal(rule.where(part, read(source, part)), bare[part.slices()])
        assert 0 < bare.sum() < bare.size / 2
        assert not image[bare].any()
        # White ground instead of black tells what is ground.
        ground = whole(mosaic, background_pixel=(1, 1, 1)) != whole(mosaic)
        np.testing.assert_array_equal(bare, ground[..., 0])
        assert source.metadata.notes == (f"the {bare.sum()} pixels that no sub-block covers are 0, and have no data",)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_boxes_of_any_mosaic_are_slices_of_the_librarys_whole_reading(tmp_path, data):
    place, side = st.integers(-60, 60), st.integers(1, 40)
    tiles = data.draw(st.lists(st.tuples(place, place, side, side), min_size=1, max_size=30))
    order = data.draw(st.permutations(range(len(tiles))))
    blocks = [
        Block(pixels=pixels(height, width, seed=number), x=x, y=y, at={"M": index})
        for number, ((y, x, height, width), index) in enumerate(zip(tiles, order, strict=True))
    ]
    path = write_czi(tmp_path / "a.czi", blocks)
    expected = whole(path)
    with closing(open_source(path)) as source:
        assert (source.height, source.width) == expected.shape[:2]
        for _ in range(3):
            y = sorted(data.draw(st.tuples(*[st.integers(0, source.height)] * 2)))
            x = sorted(data.draw(st.tuples(*[st.integers(0, source.width)] * 2)))
            box = Box(Span(*y), Span(*x))
            np.testing.assert_array_equal(read(source, box), expected[box.slices()])
        covered = np.zeros(expected.shape[:2], bool)
        top, left = min(tile[0] for tile in tiles), min(tile[1] for tile in tiles)
        for y, x, height, width in tiles:
            covered[y - top : y - top + height, x - left : x - left + width] = True
        (mask,) = source.open_masks() or (None,)
        assert (mask is None) == covered.all()
        if mask is not None:
            found = np.empty((*covered.shape, 1), np.uint8)
            mask.read(Box(Span(0, source.height), Span(0, source.width)), found)
            np.testing.assert_array_equal(found[..., 0] != 0, covered)
            assert mask.bare == (~covered).sum()


def test_where_the_file_does_not_order_sub_blocks_a_pixel_has_one_value_all_the_same(tmp_path):
    """The library itself takes another sub-block for the upper one, depending on the region."""
    rng = np.random.default_rng(5)
    blocks = [
        Block(pixels=np.full((260, 260), number, np.uint8), x=int(x), y=int(y))
        for number, (y, x) in enumerate(rng.integers(0, 2300, (200, 2)))
    ]
    path = write_czi(tmp_path / "a.czi", blocks)
    with czi.open_czi(str(path)) as reader:
        left, top, _, _ = reader.total_bounding_rectangle
        one = np.array(reader.read(roi=(left + 1000, top + 1000, 500, 500)))
        other = np.array(reader.read(roi=(left + 900, top + 900, 1200, 1200)))[100:600, 100:600]
    assert np.any(one != other)
    with closing(open_source(path, workers=2)) as source:
        image = all_pixels(source)
        for box in [Box(Span(a, a + 500), Span(b, b + 700)) for a in (0, 999, 1800) for b in (3, 900, 1600)]:
            np.testing.assert_array_equal(read(source, box), image[box.slices()])
        assert any("without an order in the file" in note for note in source.metadata.notes)


def test_channels_come_in_order_and_as_they_are_chosen(tmp_path):
    images = [pixels(40, 50, "float32", seed=seed) for seed in range(4)]
    path = written(tmp_path / "a.czi", *((image, {"plane": {"C": c}}) for c, image in enumerate(images)))
    np.testing.assert_array_equal(opened(path), np.stack(images, axis=2))
    np.testing.assert_array_equal(opened(path, channels=[3, 0, 3]), np.stack([images[3], images[0], images[3]], axis=2))
    colours = [pixels(40, 50, channels=3, seed=seed) for seed in range(2)]
    path = written(tmp_path / "b.czi", *((image, {"plane": {"C": c}}) for c, image in enumerate(colours)))
    np.testing.assert_array_equal(opened(path), np.concatenate(colours, axis=2))
    np.testing.assert_array_equal(
        opened(path, channels=[5, 0, 1]),
        np.stack([colours[1][..., 2], *np.moveaxis(colours[0][..., :2], 2, 0)], axis=2),
    )
    with pytest.raises(ChannelError, match="channel 6 was requested, but the image has 6"):
        open_source(path, channels=[6])


def test_channels_of_different_types_have_to_be_chosen(tmp_path):
    grey, deep, colour = pixels(40, 50), pixels(40, 50, "uint16"), pixels(40, 50, channels=3)
    path = written(
        tmp_path / "a.czi", *((image, {"plane": {"C": c}}) for c, image in enumerate([colour, deep, grey, deep]))
    )
    listed = "channels 0 to 2 are Bgr24, channel 3 is Gray16, channel 4 is Gray8, channel 5 is Gray16"
    with pytest.raises(SourceError, match=rf"of different types: {listed}; choose those of one type.*--channels"):
        open_source(path)
    with pytest.raises(ChannelError, match=f"requested channels are of different types: {listed}"):
        open_source(path, channels=[0, 4])
    np.testing.assert_array_equal(opened(path, channels=[5, 3]), np.stack([deep, deep], axis=2))
    np.testing.assert_array_equal(opened(path, channels=[0, 1, 2]), colour)
    np.testing.assert_array_equal(opened(path, channels=[4]), grey[..., None])


def test_planes_are_chosen_by_z_and_t(tmp_path):
    planes = {
        (z, t, c): pixels(30, 40, seed=100 * z + 10 * t + c) for z in range(3) for t in range(2) for c in range(2)
    }
    path = written(tmp_path / "a.czi", *((p, {"plane": {"Z": z, "T": t, "C": c}}) for (z, t, c), p in planes.items()))
    for z, t in itertools.product(range(3), range(2)):
        expected = np.stack([planes[z, t, 0], planes[z, t, 1]], axis=2)
        np.testing.assert_array_equal(opened(path, z=z, t=t), expected)
    with pytest.raises(SourceError, match=r"holds TCZYX of \(2, 2, 3, 30, 40\).*choose t .* from 0 to 1 and z .* to 2"):
        open_source(path)
    with pytest.raises(OptionError, match="z 3 was requested, but the image has 3"):
        open_source(path, z=3, t=0)


def test_positions_that_do_not_begin_at_0_are_counted_from_0(tmp_path):
    images = [pixels(30, 40, seed=seed) for seed in range(4)]
    blocks = [Block(pixels=one, at={"Z": 7 + n % 2, "C": 2 + 3 * (n // 2)}) for n, one in enumerate(images)]
    path = write_czi(tmp_path / "a.czi", blocks)
    np.testing.assert_array_equal(opened(path, z=1), np.stack([images[1], images[3]], axis=2))


def test_a_plane_that_is_not_stored_is_no_image(tmp_path):
    path = write_czi(
        tmp_path / "a.czi", [Block(pixels=pixels(30, 40), at={"Z": z, "C": c}) for z, c in ((0, 0), (0, 1), (1, 0))]
    )
    opened(path, z=1, channels=[0])
    with pytest.raises(SourceError, match="nothing is stored at Z 1, C 1 of this scene"):
        open_source(path, z=1)


@pytest.mark.parametrize("letter", ["R", "I", "H", "V", "B"])
def test_further_dimensions_are_refused_by_name_where_they_are_long(tmp_path, letter):
    images = [pixels(30, 40, seed=seed) for seed in range(2)]
    path = write_czi(tmp_path / "a.czi", [Block(pixels=one, at={letter: n}) for n, one in enumerate(images)])
    with pytest.raises(SourceError, match=rf"holds {letter}TCZYX of \(2, 1, 1, 1, 30, 40\), which is more than one"):
        open_source(path)
    path = write_czi(tmp_path / "b.czi", [Block(pixels=images[0], at={letter: 3})])
    np.testing.assert_array_equal(opened(path)[..., 0], images[0])


def test_scenes_are_images_of_their_own(tmp_path):
    tiles = [(pixels(50, 60, seed=n), {"location": (-20 + 45 * n, 7 * n), "scene": n // 2}) for n in range(6)]
    path = written(tmp_path / "a.czi", *tiles)
    with czi.open_czi(str(path)) as reader:
        boxes = reader.scenes_bounding_rectangle
    for number, (_, _, width, height) in boxes.items():
        with closing(open_source(path, series=number)) as source:
            assert (source.height, source.width) == (height, width)
            np.testing.assert_array_equal(all_pixels(source), whole(path, scene=number))
    with pytest.raises(OptionError, match="series 3 was requested, but the file has 3"):
        open_source(path, series=3)


def test_levels_are_the_stored_pixels_where_the_library_puts_some_beside_their_place(pyramid):
    image = pixels(96, 128)
    half = image[::2, 1::2]
    with czi.open_czi(str(pyramid)) as reader:
        edges = np.sort(np.random.default_rng(1).permuted(np.tile(np.arange(48), (600, 1)), axis=1)[:, :4], axis=1)
        regions = [(left, top, right - left, bottom - top) for left, top, right, bottom in edges.tolist()]
        wrong = [
            np.any(np.array(reader.read(roi=(2 * x - 7, 2 * y + 3, 2 * w, 2 * h), zoom=0.5))[..., 0]
                   != half[y : y + h, x : x + w])
            for x, y, w, h in regions
        ]  # fmt: skip
    assert 0 < sum(wrong) < len(wrong) / 2
    for options in ({"level": 1}, {"mpp": 1.0}):
        with closing(open_source(pyramid, **options)) as source:
            assert source.pixel_size_um == pytest.approx((1.0, 1.0))
            for x, y, w, h in regions[:99]:
                box = Box(Span(y, y + h), Span(x, x + w))
                np.testing.assert_array_equal(read(source, box)[..., 0], half[y : y + h, x : x + w])
    np.testing.assert_array_equal(opened(pyramid)[..., 0], image)
    with pytest.raises(OptionError, match="level 2 was requested, but the file has 2"):
        open_source(pyramid, level=2)
    with pytest.raises(OptionError, match=r"level 0 has 0\.5, level 1 has 1"):
        open_source(pyramid, mpp=0.7)


@pytest.mark.parametrize("workers", [1, 3])
def test_blocks_of_a_level_are_pasted_from_whole_sub_blocks(tmp_path, workers):
    """The library's own reading of these blocks, and of the whole level, differs from what is stored."""
    half = pixels(16, 2300)
    tiles = [Block(pixels=b.pixels, x=2 * b.x, scale=2) for b in tiled(half, 16, 50)]
    path = write_czi(tmp_path / "a.czi", [Block(pixels=pixels(32, 4600)), *tiles])
    assert np.any(whole(path, zoom=0.5)[..., 0] != half)
    assert np.any(whole(path, zoom=0.5, roi=(0, 0, 2000, 32))[..., 0] != half[:, :1000])
    with closing(open_source(path, level=1, workers=workers)) as source:
        assert source.count().chunks_stored == 3
        np.testing.assert_array_equal(all_pixels(source)[..., 0], half)
        box = Box(Span(3, 9), Span(977, 2111))
        np.testing.assert_array_equal(read(source, box)[..., 0], half[box.slices()])


def half_tiles(half: np.ndarray) -> list[Block]:
    return [Block(pixels=b.pixels, x=2 * b.x, y=2 * b.y, scale=2) for b in tiled(half, 24, 20)]


@pytest.mark.parametrize("lost", ["nothing", "a tile", "place", "size", "overlap", "thirds"])
def test_levels_that_are_not_read_exactly_are_left_out(tmp_path, lost):
    image = pixels(96, 120)
    half = image[::2, ::2]
    tiles = half_tiles(half)
    if lost == "a tile":
        tiles.pop(4)
    elif lost == "place":
        tiles[4] = Block(pixels=tiles[4].pixels, x=tiles[4].x + 1, y=tiles[4].y, scale=2)
    elif lost == "size":
        tiles[-1] = Block(pixels=tiles[-1].pixels, x=tiles[-1].x, y=tiles[-1].y, logical=(47, 40))
    elif lost == "overlap":
        tiles.append(Block(pixels=tiles[4].pixels, x=tiles[4].x - 2, y=tiles[4].y, scale=2))
    elif lost == "thirds":
        tiles = [Block(pixels=image[::3, ::3], scale=3)]
    path = write_czi(tmp_path / "a.czi", [Block(pixels=image), *tiles])
    with closing(open_source(path)) as source:
        np.testing.assert_array_equal(all_pixels(source)[..., 0], image)
        told = "1/4" if lost == "thirds" else "1/2"
        assert source.metadata.notes == (
            () if lost == "nothing"
            else (f"reduced levels of {told} are stored in a way that is not read exactly, and are left out",)
        )  # fmt: skip
    if lost == "nothing":
        np.testing.assert_array_equal(opened(path, level=1)[..., 0], half)
    else:
        with pytest.raises(OptionError, match="level 1 was requested, but the file has 1"):
            open_source(path, level=1)


@pytest.mark.parametrize(("rows", "columns"), [(23, 30), (24, 31)])
def test_the_last_pixel_of_a_level_may_be_rounded_up_or_down(tmp_path, rows, columns):
    image = pixels(47, 61)
    reduced = pixels(rows, columns, seed=9)
    path = write_czi(tmp_path / "a.czi", [Block(pixels=image), Block(pixels=reduced, scale=2)])
    np.testing.assert_array_equal(opened(path, level=1)[..., 0], reduced)


def test_sub_blocks_on_a_grid_are_decoded_once_within_the_bytes_asked_for(tmp_path):
    image = pixels(700, 900, "uint16")
    path = write_czi(tmp_path / "a.czi", tiled(image, 600, 700, compression="zstd0"))
    plan = ReadPlan(
        rows=[Span(max(0, y - 40), min(700, y + 240)) for y in range(0, 700, 200)],
        columns=[Span(max(0, x - 40), min(900, x + 240)) for x in range(0, 900, 200)],
    )
    with closing(open_source(path, workers=2)) as source:
        granted = source.cache_bytes(plan)
        source.prepare(plan, cache_bytes=granted)
        for rows, columns in itertools.product(plan.rows, plan.columns):
            np.testing.assert_array_equal(read(source, Box(rows, columns))[..., 0], image[Box(rows, columns).slices()])
        assert source.count().chunks_decoded == source.count().chunks_stored == 2 * 2
        assert source.decoding_bytes(plan) == 4 * 600 * 700 * 2 + (12 << 20)
        assert source._reader._cache.peak_bytes + 2 * 3 * 600 * 700 * 2 <= granted


def test_small_sub_blocks_on_a_grid_are_read_many_at_a_time(tmp_path):
    image = pixels(1400, 1300)
    path = write_czi(tmp_path / "a.czi", tiled(image, 128, 100))
    with closing(open_source(path)) as source:
        np.testing.assert_array_equal(all_pixels(source)[..., 0], image)
        assert source.count().chunks_stored == 2 * 2


def test_places_are_measured_as_painting_them_does():
    rng = np.random.default_rng(3)
    for count in (1, 5, 40):
        columns = [rng.integers(0, 50, count), rng.integers(0, 50, count), *rng.integers(1, 30, (2, count))]
        places = Places(y=columns[0], x=columns[1], height=columns[2], width=columns[3])
        painted = np.zeros((100, 100), bool)
        for y, x, height, width in zip(*columns, strict=True):
            painted[y : y + height, x : x + width] = True
        assert covered_pixels(places) == painted.sum()
    grid = Places(y=np.array([0, 0, 10]), x=np.array([0, 20, 0]), height=np.full(3, 10), width=np.full(3, 20))
    assert TileGrid.of(grid) == TileGrid(y=0, x=0, rows=10, columns=20)
    assert covered_pixels(grid) == 600


def test_directories_that_would_keep_the_search_for_levels_busy_are_done_with_at_once(tmp_path):
    """One sub-block that says it has 16 million rows, and one that makes cells of two pixels of it."""
    tall = np.broadcast_to(np.uint8(0), (1 << 24, 9))
    places = (0, 4, (1 << 24) - 4)
    tiles = [Block(pixels=pixels(2, 5), y=y, scale=2, data=b"") for y in places]
    path = write_czi(tmp_path / "a.czi", [Block(pixels=tall, data=b""), *tiles])
    begun = time.monotonic()
    with closing(open_source(path)) as source:
        assert (source.height, source.width) == (1 << 24, 9)
        assert any("1/2 are stored in a way" in note for note in source.metadata.notes)
    assert time.monotonic() - begun < 5


DAMAGED = {
    "data cut": (lambda p: Block(pixels=p, data=p.tobytes()[:-1]), "bytes are stored for"),
    "zstd of another size": (lambda p: Block(pixels=p, compression="zstd0", data=zstd(p[:-1])), "it decodes to"),
    "zstd cut": (lambda p: Block(pixels=p, compression="zstd0", data=zstd(p)[:-9]), r"[Zz]std"),
    "no zstd": (lambda p: Block(pixels=p, compression="zstd0", data=bytes(99)), "zstd frame is none"),
    "no header of zstd": (lambda p: Block(pixels=p, compression="zstd1", data=b"\7" + zstd(p)), "header of zstd"),
    "jpeg xr of another size": (lambda p: Block(pixels=p, compression="jpegxr", data=jpegxr(p[:-1])), "JPEG XR is of"),
    "jpeg xr of another type": (
        lambda p: Block(pixels=p, compression="jpegxr", data=jpegxr(p.astype("uint16"))), "does not hold Gray8",
    ),
    "no jpeg xr": (lambda p: Block(pixels=p, compression="jpegxr", data=bytes(99)), "JPEG XR is none"),
}  # fmt: skip
"""What the library pads with zeros, crops or converts without a word, and what it refuses."""


def zstd(array: np.ndarray) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_encode(array.tobytes()))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_reported_by_file_and_region_and_the_rest_is_read(tmp_path, name, workers):
    make, message = DAMAGED[name]
    image = pixels(1100, 1024)
    bad = make(image[:700])
    path = write_czi(tmp_path / "a.czi", [bad, Block(pixels=image[700:], y=700)])
    with closing(open_source(path, workers=workers)) as source:
        for _ in range(2):
            with pytest.raises(SourceError, match=rf"a\.czi: level 0, pixels y 0:.*{message}.*; the file is damaged"):
                all_pixels(source)
        lower = source._reader._form.grid.chunk_rows
        rest = Box(Span(lower, 1100), Span(0, 1024))
        np.testing.assert_array_equal(read(source, rest)[..., 0], image[rest.slices()])


@pytest.mark.parametrize("keep", [0, 9, 10, 31, 60, 543, 600, 2000, -500, -60])
def test_truncated_files_are_reported(mosaic, tmp_path, keep):
    path = tmp_path / "a.czi"
    path.write_bytes(mosaic.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"a\.czi"):
        opened(path)


def test_a_size_that_moves_the_pixels_is_noticed(tmp_path):
    path = write_czi(tmp_path / "a.czi", [Block(pixels=pixels(70, 90))])
    data = bytearray(path.read_bytes())
    data[32 + 512 + 32] = 1
    path.write_bytes(data)
    assert np.any(whole(path)[..., 0] != pixels(70, 90))
    with pytest.raises(SourceError, match=r"its parts have 6557 bytes, but it has 6556"):
        opened(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": 1}, "is part 1 of a CZI image in several files"),
        ({"entries": b"DE" + bytes(126)}, "the directory's entry of sub-block 0 is none"),
        ({"entries": Block(pixels=pixels(9, 9), part=1).entry(544)}, "some of its pixels lie in other files"),
        ({"entries": Block(pixels=pixels(9, 9), at={"Q": 1}).entry(544)}, "a dimension that is not one of X, Y"),
        ({"entries": Block(pixels=pixels(9, 9), at={"x": 1}).entry(544)}, "has dimension X 2 times"),
        ({"entries": Block(pixels=pixels(9, 9)).entry(1 << 40)}, "would lie at bytes"),
        ({"entries": Block(pixels=pixels(9, 9), logical=(0, 9)).entry(544)}, "a side of 0 pixels"),
        ({"entries": Block(pixels=pixels(9, 9), x=(1 << 31) - 5).entry(544)}, "would reach from pixel"),
        ({"entries": Block(pixels=pixels(9, 9), logical=(9, 18)).entry(544)}, "holds reduced levels alone"),
    ],
)
def test_directories_that_are_none_are_reported(tmp_path, change, message):
    path = write_czi(tmp_path / "a.czi", [Block(pixels=pixels(9, 9))], **change)
    with pytest.raises(SourceError, match=rf"a\.czi: .*{message}"):
        opened(path)


def test_more_dimensions_than_the_library_has_room_for_never_reach_it(tmp_path):
    entry = bytearray(Block(pixels=pixels(9, 9)).entry(544))
    for count in (41, 4000, -1):
        entry[28:32] = count.to_bytes(4, "little", signed=True)
        path = write_czi(tmp_path / "a.czi", [Block(pixels=pixels(9, 9))], entries=bytes(entry) + bytes(80_000))
        with pytest.raises(SourceError, match="the directory's entry of sub-block 0 is none"):
            open_source(path)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block(pixels=pixels(9, 9), pixel_type=12), "its pixels are Gray32, but only Gray8, Gray16"),
        (Block(pixels=pixels(9, 9), pixel_type=99), "of the unknown type 99"),
        (Block(pixels=pixels(9, 9), compression="jpeg"), "compressed with JPEG, which pylibCZIrw does not read"),
        (Block(pixels=pixels(9, 99), logical=(10, 99)), "which is neither the full resolution nor a reduced one"),
        (Block(pixels=pixels(9, 9, "uint16")), "its channels are of different types: channel 0 is Gray8 and Gray16"),
        (Block(pixels=pixels(9, 9), x=1 << 30, y=-(1 << 29)), "claim to be far apart, in an image of"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path, block, message):
    path = write_czi(tmp_path / "a.czi", [Block(pixels=pixels(9, 9), x=99), block])
    if block.pixel_type is not None or block.compression == "jpeg":
        path = write_czi(tmp_path / "a.czi", [block])
    with pytest.raises(SourceError, match=rf"a\.czi: .*{message}"):
        open_source(path)


def test_a_file_that_is_being_written_says_so(tmp_path):
    path = write_czi(tmp_path / "a.czi", [Block(pixels=pixels(9, 9))], pending=0xFFFF)
    with closing(open_source(path)) as source:
        assert source.metadata.notes == ("the file is marked as not completely written",)


@pytest.mark.parametrize("metadata", [None, "", "<broken", SCALING.format(x="x", y=1), "<ImageDocument/>"])
def test_files_that_do_not_tell_their_pixel_size_are_read(tmp_path, metadata):
    path = write_czi(tmp_path / "a.czi", [Block(pixels=pixels(9, 9))], metadata=metadata)
    with closing(open_source(path)) as source:
        assert source.pixel_size_um is None
        np.testing.assert_array_equal(all_pixels(source)[..., 0], pixels(9, 9))
    with pytest.raises(OptionError, match="does not say how large its pixels are"):
        open_source(path, mpp=1)


def test_files_are_told_by_content_and_listed_by_name(mosaic, tmp_path):
    other = tmp_path / "a.dat"
    other.write_bytes(mosaic.read_bytes())
    np.testing.assert_array_equal(opened(other), opened(mosaic))
    assert mosaic in find_images([mosaic.parent]).images
    (tmp_path / "b.czi").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"b\.czi: is of an unknown format"):
        open_source(tmp_path / "b.czi")


def test_without_the_library_the_error_says_what_to_install(mosaic, monkeypatch):
    monkeypatch.setitem(sys.modules, "pylibCZIrw", None)
    with pytest.raises(SourceError, match=r"is a Zeiss CZI file.*pip install 'exactile\[czi\]'"):
        open_source(mosaic)


def test_choices_that_a_file_does_not_have_are_refused(mosaic):
    for options in ({"level": 1}, {"series": 1}, {"z": 1}, {"t": 1}, {"axes": "CYX"}, {"workers": 0}, {"page": 0}):
        with pytest.raises(OptionError):
            open_source(mosaic, **options)


def test_closed_files_read_nothing_more(mosaic):
    source = open_source(mosaic)
    source.close()
    source.close()
    with pytest.raises(SourceError, match="read after close"):
        all_pixels(source)


def test_an_image_is_known_again_until_it_or_the_choice_changes(mosaic, pyramid, tmp_path):
    def identity(path, **options) -> str:
        with closing(open_source(path, **options)) as source:
            return json.dumps(source.identity())

    found = [identity(mosaic), identity(mosaic, channels=[0]), identity(pyramid), identity(pyramid, level=1)]
    assert found[0] == identity(mosaic)
    path = tmp_path / "a.czi"
    path.write_bytes(mosaic.read_bytes()[:-1] + b"\1")
    found.append(identity(path))
    assert len(set(found)) == 5


def test_labels_from_a_czi_file_are_those_from_the_same_pixels_in_memory(tmp_path):
    tiles = [(pixels(150, 200, channels=3, seed=n), {"location": (-50 + 170 * n, 30 * n)}) for n in range(3)]
    path = written(tmp_path / "a.czi", *tiles)
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet_d2")
    deployed = deploy(network, image_dtype="uint8", output="labels")
    labels = []
    for source in (open_source(path), ArraySource(whole(path))):
        sink = ArraySink()
        Session(deployed, memory_bytes=8 << 30).segment(source, sink, plan="tile", tile=(128, 128))
        labels.append(sink.result)
        source.close()
    np.testing.assert_array_equal(*labels)


def real(name: str) -> Path:
    """A file of ZEN from the package napari-czann-segment, which is not imported."""
    spec = find_spec("napari_czann_segment")
    places = [Path(place) / "_data" for place in (spec.submodule_search_locations or [])] if spec else []
    found = [place / name for place in places if (place / name).is_file()]
    if not found:
        pytest.skip(f"{name} comes with pip install napari-czann-segment==0.1.2 --no-deps, which is not installed")
    return found[0]


@pytest.mark.slow
def test_a_file_of_zen_with_one_sub_block_is_read(tmp_path):
    path = real("PGC_20X.czi")
    with closing(open_source(path)) as source:
        assert (source.height, source.width, source.channels, source.dtype) == (2755, 3675, 1, np.uint16)
        assert source.pixel_size_um == pytest.approx((0.227, 0.227))
        expected = whole(path)
        for box in boxes_of(2755, 3675):
            np.testing.assert_array_equal(read(source, box), expected[box.slices()])


@pytest.mark.slow
def test_a_file_of_zen_with_colours_and_a_level_is_read():
    path = real("Tumor_HE_Stain_T76.czi")
    for options, zoom, shape in (({}, 1, (1200, 1600)), ({"level": 1}, 0.5, (600, 800))):
        with closing(open_source(path, **options)) as source:
            assert (source.height, source.width, source.channels, source.dtype) == (*shape, 3, np.uint8)
            expected = whole(path, zoom=zoom)
            for box in boxes_of(*shape):
                np.testing.assert_array_equal(read(source, box), expected[box.slices()])
