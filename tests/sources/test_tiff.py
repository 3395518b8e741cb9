"""TIFF files give the pixels that tifffile's own reader gives, whatever their layout."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.tiff.source import TiffSource
from tests.support.tiff_files import (
    ASCII,
    BYTES,
    LONG,
    LONG8,
    SHORT,
    image_tags,
    strip_tags,
    tile_tags,
    tiles_of,
    write_tiff,
)

HEIGHT, WIDTH = 83, 117
BOXES = [
    Box(Span(0, HEIGHT), Span(0, WIDTH)),
    Box(Span(31, 65), Span(30, 98)),
    Box(Span(HEIGHT - 1, HEIGHT), Span(0, WIDTH)),
    Box(Span(0, HEIGHT), Span(WIDTH - 1, WIDTH)),
    Box(Span(40, 41), Span(50, 51)),
    Box(Span(5, 5), Span(0, WIDTH)),
]


def picture(channels: int = 1, dtype: str = "u1", height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth picture with noise, (H, W) for one channel, else (H, W, channels)."""
    rng = np.random.default_rng(channels)
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    values = 120 + 60 * np.sin(y / 9 + c) * np.cos(x / 7) + rng.integers(-9, 10, (height, width, channels))
    if "f" in dtype:
        image = (values / 37).astype(dtype)
    else:
        image = (values * (1 if dtype.endswith("1") else 251)).astype(dtype)
    return image[..., 0] if channels == 1 else image


def as_yxc(array: np.ndarray, *, planar: bool) -> np.ndarray:
    if array.ndim == 2:
        return array[..., None]
    return np.moveaxis(array, 0, 2) if planar else array


def tifffile_page(path: Path) -> np.ndarray:
    """The oracle: the first page as tifffile reads it."""
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].asarray()


def read(source: TiffSource, box: Box | None = None) -> np.ndarray:
    box = box or Box(Span(0, source.height), Span(0, source.width))
    out = np.full((*box.shape, source.channels), 77, source.dtype)
    source.read(box, out)
    return out


def assert_reads(path: Path, expected: np.ndarray, **options) -> None:
    """Compare every box of BOXES (or the whole image when it is smaller) with ``expected`` (H, W, C)."""
    with closing(TiffSource(path, **options)) as source:
        assert (source.height, source.width, source.channels) == expected.shape
        assert source.dtype.isnative
        assert source.dtype == expected.dtype.newbyteorder("=")
        for box in BOXES if expected.shape[:2] == (HEIGHT, WIDTH) else [None]:
            np.testing.assert_array_equal(read(source, box), expected[box.slices()] if box else expected)


def lossless_cases():
    for compression, layout, dtype, order in itertools.product(
        [None, "zlib", "lzw", "zstd"], ["strips", "one strip", "tiles"], ["u1", "u2", "f4"], ["<", ">"]
    ):
        for predictor in (False, True) if compression else (False,):
            yield compression, layout, dtype, order, predictor


LAYOUTS = {"strips": {"rowsperstrip": 20}, "one strip": {"rowsperstrip": HEIGHT}, "tiles": {"tile": (32, 48)}}


@pytest.mark.parametrize("kind", ["grey", "rgb", "rgba", "planar"])
@pytest.mark.parametrize(("compression", "layout", "dtype", "order", "predictor"), list(lossless_cases()))
def test_lossless_files_give_the_pixels_that_were_stored(tmp_path, kind, compression, layout, dtype, order, predictor):
    channels = {"grey": 1, "rgb": 3, "rgba": 4, "planar": 3}[kind]
    image = picture(channels, dtype)
    stored = np.moveaxis(image, 2, 0) if kind == "planar" else image
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        stored,
        byteorder=order,
        bigtiff=order == ">",
        photometric="minisblack" if kind == "grey" else "rgb",
        planarconfig="separate" if kind == "planar" else None,
        extrasamples=["unassalpha"] if kind == "rgba" else None,
        compression=compression,
        predictor=predictor,
        **LAYOUTS[layout],
    )
    expected = as_yxc(tifffile_page(path), planar=kind == "planar")
    np.testing.assert_array_equal(expected, as_yxc(image, planar=False))
    assert_reads(path, expected)


@pytest.mark.parametrize("layout", ["strips", "one strip", "tiles"])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("grey", {"photometric": "minisblack"}),
        ("rgb", {"photometric": "rgb"}),
        ("ycbcr", {"photometric": "ycbcr", "subsampling": (1, 1)}),
        ("ycbcr", {"photometric": "ycbcr", "subsampling": (2, 2)}),
        ("planar", {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_jpeg_files_give_the_pixels_that_tifffile_decodes(tmp_path, layout, kind, arguments):
    image = picture(1 if kind == "grey" else 3)
    path = tmp_path / "image.tif"
    layout_arguments = {"rowsperstrip": 32} if layout == "strips" else LAYOUTS[layout]
    tifffile.imwrite(
        path,
        np.moveaxis(image, 2, 0) if kind == "planar" else image,
        compression="jpeg",
        compressionargs={"level": 90},
        **arguments,
        **layout_arguments,
    )
    assert_reads(path, as_yxc(tifffile_page(path), planar=kind == "planar"))


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """A JPEG stream cut into its tables and the rest, each with its own start and end."""
    tables, rest, position = b"\xff\xd8", b"\xff\xd8", 2
    while stream[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if stream[position + 1] in (0xDB, 0xC4):
            tables += stream[position:end]
        elif stream[position + 1] != 0xE0:
            rest += stream[position:end]
        position = end
    return tables + b"\xff\xd9", rest + stream[position:]


def test_jpeg_tables_stored_once_for_all_chunks_are_used(tmp_path):
    streams = [imagecodecs.jpeg_encode(tile, level=85) for tile in tiles_of(picture(3), 32, 48)]
    parts = [split_tables(stream) for stream in streams]
    tags = {
        **image_tags(HEIGHT, WIDTH, samples=3, compression=7),
        **tile_tags(32, 48),
        262: (SHORT, [6]),
        347: (BYTES, parts[0][0]),
        530: (SHORT, [2, 2]),
    }
    path = write_tiff(tmp_path / "image.tif", tags, [rest for _, rest in parts])
    expected = tifffile_page(path)
    assert np.abs(expected.astype(int) - picture(3)).mean() < 12
    assert_reads(path, expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("empty", [[], [0], [4, 8], list(range(9))])
def test_empty_tiles_are_filled_as_tifffile_fills_them(tmp_path, order, big, compression, empty):
    tiles = [tile.astype(order + "u2").tobytes() for tile in tiles_of(picture(1, "u2"), 32, 48)]
    chunks = [imagecodecs.zlib_encode(tile) if compression == 8 else tile for tile in tiles]
    chunks = [None if index in empty else chunk for index, chunk in enumerate(chunks)]
    tags = {
        **image_tags(HEIGHT, WIDTH, bits=16, compression=compression),
        **tile_tags(32, 48),
        42113: (ASCII, b"513\0"),
    }
    path = write_tiff(tmp_path / "image.tif", tags, chunks, byteorder=order, big=big)
    expected = tifffile_page(path)
    assert (513 in expected) == bool(empty)
    assert_reads(path, expected[..., None])


@pytest.mark.parametrize("compression", [1, 8])
def test_an_empty_tile_may_leave_a_gap_in_the_file(tmp_path, compression):
    """A size of 0 with the offset still there; tifffile's joined reads mistake the tiles after it."""
    image = picture(1)
    tiles = [tile.tobytes() for tile in tiles_of(image, 32, 48)]
    chunks = [imagecodecs.zlib_encode(tile) if compression == 8 else tile for tile in tiles]
    tags = {**image_tags(HEIGHT, WIDTH, compression=compression), **tile_tags(32, 48)}
    sizes = [len(chunk) if index != 4 else 0 for index, chunk in enumerate(chunks)]
    path = write_tiff(tmp_path / "image.tif", {**tags, 325: (LONG, sizes)}, chunks)
    expected = image[..., None].copy()
    expected[32:64, 48:96] = 0
    assert_reads(path, expected)


def test_an_offset_of_0_is_an_empty_tile_whatever_its_size(tmp_path):
    image = picture(1)
    tags = {**image_tags(HEIGHT, WIDTH), **tile_tags(32, 48), 325: (LONG, [32 * 48] * 9)}
    chunks = [tile.tobytes() if index != 4 else None for index, tile in enumerate(tiles_of(image, 32, 48))]
    path = write_tiff(tmp_path / "image.tif", tags, chunks)
    expected = image.copy()
    expected[32:64, 48:96] = 0
    np.testing.assert_array_equal(tifffile_page(path), expected)
    assert_reads(path, expected[..., None])


@pytest.mark.parametrize("compression", [1, 8])
def test_tiles_cut_at_the_edge_of_the_image_are_read(tmp_path, compression):
    """Some writers store the last tiles of a row or column without padding."""
    image = picture(1)
    chunks = [
        np.ascontiguousarray(image[y : y + 32, x : x + 48]).tobytes()
        for y in range(0, HEIGHT, 32)
        for x in range(0, WIDTH, 48)
    ]
    chunks = [imagecodecs.zlib_encode(chunk) if compression == 8 else chunk for chunk in chunks]
    tags = {**image_tags(HEIGHT, WIDTH, compression=compression), **tile_tags(32, 48)}
    path = write_tiff(tmp_path / "image.tif", tags, chunks)
    expected = tifffile_page(path)
    np.testing.assert_array_equal(expected, image)
    assert_reads(path, expected[..., None])


def test_uncompressed_strips_need_not_follow_each_other(tmp_path):
    image = picture(3)
    strips = [image[y : y + 20].tobytes() for y in range(0, HEIGHT, 20)]
    tags = {**image_tags(HEIGHT, WIDTH, samples=3), **strip_tags(20)}
    offsets = [8 + sum(len(s) + len(s) % 2 for s in strips[index + 1 :]) for index in range(len(strips))]
    path = write_tiff(tmp_path / "image.tif", {**tags, 273: (LONG, offsets), 279: (LONG, [len(s) for s in strips])},
                      strips[::-1])  # fmt: skip
    np.testing.assert_array_equal(tifffile_page(path), image)
    assert_reads(path, image)


def test_the_wrong_size_of_a_single_strip_is_no_matter(tmp_path):
    """ImageJ and others write one strip whose size is that of a whole stack, or 0."""
    image = picture(1)
    for size in (0, 10 * image.size):
        tags = {**image_tags(HEIGHT, WIDTH), **strip_tags(HEIGHT), 279: (LONG, [size])}
        path = write_tiff(tmp_path / "image.tif", tags, [image.tobytes()])
        np.testing.assert_array_equal(tifffile_page(path), image)
        assert_reads(path, image[..., None])


def test_bits_stored_in_reverse_and_packed_samples_are_read(tmp_path):
    image = picture(1)
    tags = {**image_tags(HEIGHT, WIDTH), **strip_tags(20), 266: (SHORT, [2])}
    strips = [imagecodecs.bitorder_encode(image[y : y + 20].tobytes()) for y in range(0, HEIGHT, 20)]
    assert_reads(write_tiff(tmp_path / "reverse.tif", tags, strips), image[..., None])
    even = picture(1, "u2", 32, 64) // 16
    tags = {**image_tags(32, 64, bits=12), **strip_tags(32)}
    path = write_tiff(tmp_path / "packed.tif", tags, [imagecodecs.packints_encode(even, 12)])
    np.testing.assert_array_equal(tifffile_page(path), even)
    assert_reads(path, even[..., None])


def test_a_predictor_without_compression_is_undone(tmp_path):
    """For strips that follow each other the oracle is numpy: tifffile reads those without undoing it rightly."""
    image = picture(3)
    tags = {**image_tags(HEIGHT, WIDTH, samples=3), 317: (SHORT, [2])}
    tiles = [np.diff(tile, axis=1, prepend=np.uint8(0)).tobytes() for tile in tiles_of(image, 32, 48)]
    path = write_tiff(tmp_path / "tiles.tif", {**tags, **tile_tags(32, 48)}, tiles)
    np.testing.assert_array_equal(tifffile_page(path), image)
    assert_reads(path, image)
    rows = np.diff(image, axis=1, prepend=np.uint8(0))
    strips = [rows[y : y + 20].tobytes() for y in range(0, HEIGHT, 20)]
    assert_reads(write_tiff(tmp_path / "strips.tif", {**tags, **strip_tags(20)}, strips), image)


def test_rows_that_follow_each_other_on_the_first_page_may_not_on_the_second(tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(picture(2), 2, 0))
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", rowsperstrip=20, metadata={"axes": "CYX"})
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[1]
        first, second, *rest = page.dataoffsets
        page.tags["StripOffsets"].overwrite([second, first, *rest])
    planes[1, :40] = np.roll(planes[1, :40], 20, axis=0)
    assert_reads(path, np.moveaxis(planes, 0, 2))


def test_samples_stay_as_stored_where_zero_is_white(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", picture(1), photometric="miniswhite")
    assert_reads(tmp_path / "image.tif", picture(1)[..., None])


STACKS = {
    "ImageJ": {"imagej": True},
    "ImageJ, compressed": {"imagej": True, "compression": "zlib"},
    "OME": {"ome": True, "photometric": "minisblack"},
    "OME, compressed tiles": {"ome": True, "photometric": "minisblack", "compression": "lzw", "tile": (32, 48)},
    "OME, uncompressed tiles": {"ome": True, "photometric": "minisblack", "tile": (32, 48)},
    "tifffile": {"photometric": "minisblack"},
    "tifffile, compressed": {"photometric": "minisblack", "compression": "zstd"},
    "planar": {"photometric": "minisblack", "planarconfig": "separate"},
}


@pytest.mark.parametrize("channels", [None, [1], [4, 0, 2], [3, 3]])
@pytest.mark.parametrize("writer", STACKS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_channels_stored_as_pages_or_planes_become_channels(tmp_path, channels, writer, order):
    planes = np.ascontiguousarray(np.moveaxis(picture(5, "u2"), 2, 0))
    path = tmp_path / "image.tif"
    if "ImageJ" in writer and order == "<":
        order = ">"
    tifffile.imwrite(path, planes, byteorder=order, metadata={"axes": "CYX"}, **STACKS[writer])
    with tifffile.TiffFile(path) as tiff:
        expected = np.moveaxis(tiff.series[0].asarray(), 0, 2)
    np.testing.assert_array_equal(expected, picture(5, "u2"))
    assert_reads(path, expected[..., channels or slice(None)], channels=channels)


def test_planes_without_pages_of_their_own_are_read(tmp_path):
    """ImageJ describes a stack of more than 4 GB by its first page alone."""
    planes = np.ascontiguousarray(np.moveaxis(picture(5, ">u2"), 2, 0))
    tags = {
        **image_tags(HEIGHT, WIDTH, bits=16),
        **strip_tags(HEIGHT),
        270: (ASCII, b"ImageJ=1.11a\nimages=5\nchannels=5\nhyperstack=true\n\0"),
        279: (LONG, [planes[0].nbytes]),
    }
    path = write_tiff(tmp_path / "image.tif", tags, [planes.tobytes()], byteorder=">")
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
        np.testing.assert_array_equal(tiff.series[0].asarray(), planes)
    assert_reads(path, picture(5, "u2")[..., [3, 0]], channels=[3, 0])


@pytest.mark.parametrize("channels", [[0], [2, 1, 0], [0, 1, 2], [1, 3], [0, 1, 3], [2, 2]])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_channels_stored_together_are_chosen_in_any_order(tmp_path, channels, compression):
    image = picture(4)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb", tile=(32, 48), compression=compression)
    assert_reads(tmp_path / "image.tif", image[..., channels], channels=channels)


def test_only_the_planes_chosen_are_decoded(tmp_path):
    planes = np.moveaxis(picture(5), 2, 0)
    tifffile.imwrite(tmp_path / "image.tif", planes, photometric="minisblack", planarconfig="separate",
                     compression="zlib", tile=(32, 48))  # fmt: skip
    with closing(TiffSource(tmp_path / "image.tif", channels=[3, 1])) as source:
        np.testing.assert_array_equal(read(source), picture(5)[..., [3, 1]])
        assert source.count().chunks_decoded == source.count().chunks_stored == 2 * 9


def test_a_stack_of_planes_is_refused_until_told_what_it_is(tmp_path):
    stack = np.moveaxis(picture(5), 2, 0)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(SourceError, match=r"holds ZYX of \(5, 83, 117\).*page.*CYX"):
        TiffSource(path)
    assert_reads(path, picture(5), axes="CYX")
    for page in range(5):
        assert_reads(path, stack[page][..., None], page=page)
    with pytest.raises(OptionError, match="page 5 was requested, but the file has 5"):
        TiffSource(path, page=5)
    with pytest.raises(OptionError, match="page -1"):
        TiffSource(path, page=-1)


def test_more_than_three_axes_are_refused(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((2, 3, 20, 30), "u1"), photometric="minisblack", metadata={"axes": "ZCYX"})
    with pytest.raises(SourceError, match="holds ZCYX"):
        TiffSource(path)
    tifffile.imwrite(path, np.zeros((2, 20, 30, 3), "u1"), photometric="rgb", metadata={"axes": "CYXS"})
    with pytest.raises(SourceError, match="holds CYXS"):
        TiffSource(path, axes="CYX")


def write_pyramid(path: Path, kind: str, compression: str | None) -> None:
    """Three levels: below the first page, as scanners of Aperio store them, or as reduced pages after the first."""
    full = picture(3, height=HEIGHT * 4, width=WIDTH * 4)
    options = {"photometric": "rgb", "compression": compression, "metadata": None}
    tiles = {**options, "tile": (32, 48)}
    aperio = {"description": "Aperio Image Library v1"} if kind == "aperio" else {}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(full, subifds=2 if kind == "subifds" else None, **tiles, **aperio)
        if kind == "aperio":
            tiff.write(picture(3), **options)
        for step in (2, 4):
            reduced = {} if kind == "aperio" else {"subfiletype": 1}
            tiff.write(np.ascontiguousarray(full[::step, ::step]), **tiles, **reduced)


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("kind", ["subifds", "aperio", "reduced pages"])
def test_every_level_of_a_pyramid_is_read(tmp_path, compression, kind):
    path = tmp_path / "image.tif"
    write_pyramid(path, kind, compression)
    with tifffile.TiffFile(path) as tiff:
        expected = [level.asarray() for level in tiff.series[0].levels]
    assert len(expected) == 3
    for number, level in enumerate(expected):
        assert_reads(path, level, level=number)
    for level in (3, -1):
        with pytest.raises(OptionError, match=f"level {level} was requested, but the file has 3"):
            TiffSource(path, level=level)


def test_further_series_of_a_file_are_chosen_by_number(tmp_path):
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture(1))
        tiff.write(picture(3, height=40, width=50), photometric="rgb")
    assert_reads(path, picture(1)[..., None])
    assert_reads(path, picture(3, height=40, width=50), series=1)
    assert_reads(path, picture(3, height=40, width=50), page=1)
    with pytest.raises(OptionError, match="series 2"):
        TiffSource(path, series=2)
    with pytest.raises(OptionError, match="goes with no level"):
        TiffSource(path, page=0, level=1)


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (np.zeros((20, 30), "c8"), {}, "complex64"),
        (np.zeros((20, 30), "i8"), {}, "int64"),
        (np.zeros((16, 32, 48), "u1"), {"volumetric": True, "tile": (16, 16, 16)}, "volume"),
    ],
)
def test_other_kinds_of_samples_are_refused_by_name(tmp_path, image, arguments, message):
    tifffile.imwrite(tmp_path / "image.tif", image, **{"photometric": "minisblack", **arguments})
    with pytest.raises(SourceError, match=rf"image\.tif: .*{message}.*;"):
        TiffSource(tmp_path / "image.tif")


def test_colours_subsampled_without_jpeg_are_refused(tmp_path):
    tags = {**image_tags(16, 16, samples=3), **strip_tags(16), 262: (SHORT, [6]), 530: (SHORT, [2, 2])}
    path = write_tiff(tmp_path / "image.tif", tags, [bytes(16 * 16 * 3)])
    with pytest.raises(SourceError, match=r"image\.tif.*subsampling"):
        TiffSource(path)


def test_an_unknown_compression_is_refused(tmp_path):
    path = write_tiff(tmp_path / "image.tif", {**image_tags(16, 16, compression=12345), **strip_tags(16)}, [bytes(256)])
    with pytest.raises(SourceError, match=r"image\.tif.*12345"):
        TiffSource(path)


def test_channels_and_axes_that_are_not_there_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", picture(3), photometric="rgb")
    with pytest.raises(ChannelError, match="channel 3 was requested, but the image has 3"):
        TiffSource(tmp_path / "image.tif", channels=[3])
    with pytest.raises(SourceError, match="has 3 channels"):
        TiffSource(tmp_path / "image.tif", axes="YX")
    with pytest.raises(OptionError, match="axes 'ZYX'"):
        TiffSource(tmp_path / "image.tif", axes="ZYX")
    with pytest.raises(OptionError, match="workers is 0"):
        TiffSource(tmp_path / "image.tif", workers=0)


RANDOM_BOX_FILES = {
    "raw tiles": {"tile": (32, 48)},
    "raw strips": {"rowsperstrip": 7},
    "tiles": {"tile": (32, 48), "compression": "zlib"},
    "strips": {"rowsperstrip": 7, "compression": "lzw"},
    "planar": {"tile": (32, 48), "compression": "zlib", "planarconfig": "separate"},
}


@pytest.mark.parametrize("kind", RANDOM_BOX_FILES)
@pytest.mark.parametrize("workers", [1, 4])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_boxes_in_any_order_are_slices_of_the_image(tmp_path, kind, workers, data):
    image = picture(3, "u2")
    path = tmp_path / "image.tif"
    if not path.exists():
        stored = np.moveaxis(image, 2, 0) if kind == "planar" else image
        tifffile.imwrite(path, stored, photometric="rgb", **RANDOM_BOX_FILES[kind])
    with closing(TiffSource(path, workers=workers)) as source:
        for _ in range(data.draw(st.integers(1, 4))):
            y = sorted(data.draw(st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT))))
            x = sorted(data.draw(st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH))))
            box = Box(Span(*y), Span(*x))
            np.testing.assert_array_equal(read(source, box), image[box.slices()])


@pytest.mark.parametrize("strips", [1, 2])
def test_uncompressed_pixels_of_huge_strips_are_read_without_the_rest(tmp_path, strips):
    """Strips of 6 GB, nearly all of them a hole in the file, give their last rows at once and in little memory."""
    height, width = 60_000, 100_000
    strip_bytes = height * width
    starts = [(1 << 20) + index * strip_bytes for index in range(strips)][::-1]
    tags = {**image_tags(height * strips, width), **strip_tags(height)}
    places = {273: (LONG8, starts), 279: (LONG8, [strip_bytes] * strips)}
    path = write_tiff(tmp_path / "image.tif", {**tags, **places}, [b""], big=True)
    with path.open("r+b") as file:
        file.seek(starts[-1] + strip_bytes - 3)
        file.write(b"\x01\x02\x03")
        file.truncate(starts[0] + strip_bytes)
    with closing(TiffSource(path)) as source:
        rows = Span(source.height - 2, source.height)
        pixels = read(source, Box(rows, Span(width - 5, width)))
    np.testing.assert_array_equal(pixels[..., 0], [[0] * 5, [0, 0, 1, 2, 3]])
