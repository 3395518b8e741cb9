"""What goes into a sink comes out of its file, read by other libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from exactile.geometry import Box, Span
from exactile.sinks.array import ArraySink
from exactile.sinks.npy import NpySink
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.tiff.sink import TiffSink

COMPRESSIONS = ("zlib", "zstd", "lzw", "none")
DTYPES = ("uint8", "uint16", "float32")


def spec_of(pixels: np.ndarray) -> ResultSpec:
    channels = pixels.shape[0] if pixels.ndim == 3 else 0
    return ResultSpec(height=pixels.shape[-2], width=pixels.shape[-1], channels=channels, dtype=pixels.dtype.name)


def row_major(height: int, width: int, rows: int, columns: int) -> list[Box]:
    return [
        Box(Span(y, min(height, y + rows)), Span(x, min(width, x + columns)))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]


def write(sink, pixels: np.ndarray, boxes: list[Box]) -> None:
    sink.begin(spec_of(pixels))
    for box in boxes:
        sink.write(box, pixels[(..., *box.slices())])
    sink.finish()


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype == "float32":
        return random.standard_normal(shape).astype(dtype)
    # Half of the picture is constant: runs and noise are different paths in a codec.
    pixels = random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    pixels[..., : shape[-1] // 2] = 3
    return pixels


@st.composite
def partitions(draw, *, largest: int = 90):
    """Height, width, and boxes that partition them: repeated cuts of some box, in any order."""
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    boxes = [Box(Span(0, height), Span(0, width))]
    for _ in range(draw(st.integers(0, 12))):
        box = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        if draw(st.booleans()):
            cut = draw(st.integers(box.y.start, box.y.stop))
            boxes += [Box(Span(box.y.start, cut), box.x), Box(Span(cut, box.y.stop), box.x)]
        else:
            cut = draw(st.integers(box.x.start, box.x.stop))
            boxes += [Box(box.y, Span(box.x.start, cut)), Box(box.y, Span(cut, box.x.stop))]
    return height, width, draw(st.permutations(boxes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pixels")


@settings(max_examples=120, deadline=None)
@given(
    partition=partitions(),
    channels=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
    compression=st.sampled_from(COMPRESSIONS),
    suffix=st.sampled_from((".tif", ".ome.tif")),
    tile=st.sampled_from((16, 32, 64)),
    workers=st.integers(1, 3),
)
def test_tiff_gives_back_every_pixel_of_any_partition_in_any_order(
    folder, partition, channels, dtype, compression, suffix, tile, workers
):
    height, width, boxes = partition
    pixels = noise((channels, height, width) if channels else (height, width), dtype)
    path = folder / f"any{suffix}"
    write(TiffSink(path, compression=compression, tile=tile, workers=workers, overwrite=True), pixels, boxes)
    read = tifffile.imread(path)
    wanted = pixels[0] if suffix == ".ome.tif" and channels == 1 else pixels
    assert read.dtype == pixels.dtype
    np.testing.assert_array_equal(read, wanted, strict=True)


@settings(max_examples=60, deadline=None)
@given(partition=partitions(), channels=st.integers(0, 3), dtype=st.sampled_from((*DTYPES, "int64", "float16")))
def test_npy_and_array_give_back_every_pixel_of_any_partition_in_any_order(folder, partition, channels, dtype):
    height, width, boxes = partition
    shape = (channels, height, width) if channels else (height, width)
    pixels = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    npy, array = NpySink(folder / "any.npy", overwrite=True), ArraySink()
    for sink in (npy, array):
        write(sink, pixels, boxes)
    np.testing.assert_array_equal(np.load(folder / "any.npy"), pixels, strict=True)
    np.testing.assert_array_equal(array.result, pixels, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_row_by_row_sweeps_of_odd_boxes_read_back_at_the_default_tile_size(tmp_path, compression, dtype):
    for shape, box in (((1111, 1327), (333, 400)), ((2, 700, 530), (199, 530)), ((513, 511), (1, 511))):
        pixels = noise(shape, dtype)
        path = tmp_path / f"{len(shape)}_{shape[-1]}.tiff"
        write(TiffSink(path, compression=compression), pixels, row_major(*shape[-2:], *box))
        np.testing.assert_array_equal(tifffile.imread(path), pixels, strict=True)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("channels", "dtype"), [(0, "uint8"), (0, "uint16"), (3, "float32")])
def test_libtiff_reads_the_same_pixels(tmp_path, compression, channels, dtype):
    """The oracle is libtiff, through Pillow: what QuPath's, ASAP's and GIS readers build on."""
    pixels = noise((channels, 150, 217) if channels else (150, 217), dtype)
    write(TiffSink(tmp_path / "a.tif", compression=compression, tile=64), pixels, row_major(150, 217, 40, 100))
    with Image.open(tmp_path / "a.tif") as image:
        for page, plane in enumerate(pixels if channels else pixels[None]):
            image.seek(page)
            np.testing.assert_array_equal(np.asarray(image), plane)


@pytest.mark.parametrize("edge", [64, 128])
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_an_uncompressed_image_of_whole_tiles_reads_back(tmp_path, channels, edge):
    """A page that is exactly one tile is laid out differently by tifffile."""
    pixels = noise((channels, edge, edge) if channels else (edge, edge), "float32")
    write(TiffSink(tmp_path / "a.tif", compression="none", tile=64), pixels, row_major(edge, edge, 50, 64))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels, strict=True)


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "array"])
@pytest.mark.parametrize("channels", [0, 2])
def test_a_block_may_be_reused_and_have_any_strides(tmp_path, name, channels):
    pixels = noise((channels, 70, 90) if channels else (70, 90), "uint16")
    sinks = {"a.tif": lambda: TiffSink(tmp_path / name, tile=32), "a.npy": lambda: NpySink(tmp_path / name)}
    sink = sinks.get(name, ArraySink)()
    sink.begin(spec_of(pixels))
    for box in row_major(70, 90, 32, 32):
        block = np.moveaxis(np.moveaxis(pixels[(..., *box.slices())], 0, -1).copy(), -1, 0)  # last axis not contiguous
        sink.write(box, block)
        block[:] = 0
    sink.finish()
    read = {"a.tif": tifffile.imread, "a.npy": np.load}.get(name, lambda _: sink.result)(tmp_path / name)
    np.testing.assert_array_equal(read, pixels, strict=True)


def test_npy_can_be_mapped_with_aligned_pixels(tmp_path):
    pixels = noise((3, 20, 30), "float32")
    write(NpySink(tmp_path / "a.npy"), pixels, row_major(20, 30, 7, 11))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert mapped.flags.aligned
    assert mapped.offset % 64 == 0
    np.testing.assert_array_equal(mapped, pixels)
