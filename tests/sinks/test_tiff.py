"""The TIFF file itself: tags, OME metadata, and the memory that writing takes."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.errors import OptionError, SinkError
from exactile.geometry import Box, Span
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.tiff import sink as tiff_module
from exactile.sinks.tiff.sink import TiffSink
from exactile.sinks.tiles.assembly import TileArrays, most_open_tiles
from exactile.sinks.tiles.codec import most_encoded_bytes, tile_encoder
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.tiles.pyramid import Pyramid

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def spans(size: int, step: int) -> list[Span]:
    return [Span(start, min(size, start + step)) for start in range(0, size, step)]


def spec_of(pixels: np.ndarray) -> ResultSpec:
    channels = pixels.shape[0] if pixels.ndim == 3 else 0
    return ResultSpec(height=pixels.shape[-2], width=pixels.shape[-1], channels=channels, dtype=pixels.dtype.name)


def write(sink: TiffSink, pixels: np.ndarray, plan: WritePlan) -> None:
    sink.begin(spec_of(pixels))
    for rows in plan.rows:
        for columns in plan.columns:
            box = Box(rows, columns)
            sink.write(box, pixels[(..., *box.slices())])
    sink.finish()


def plan_of(pixels: np.ndarray, rows: int, columns: int) -> WritePlan:
    return WritePlan(rows=spans(pixels.shape[-2], rows), columns=spans(pixels.shape[-1], columns))


@pytest.mark.parametrize(("name", "code"), [("zlib", 8), ("zstd", 50000), ("lzw", 5), ("none", 1)])
@pytest.mark.parametrize("shape", [(90, 130), (3, 90, 130)])
def test_pages_are_tiled_bigtiff_minisblack_with_the_compression_asked_for(tmp_path, name, code, shape):
    pixels = np.zeros(shape, "uint8")
    sink = TiffSink(tmp_path / "a.tif", compression=name, tile=32, pyramid=False)
    write(sink, pixels, plan_of(pixels, 50, 60))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
        assert len(tiff.pages) == (1 if len(shape) == 2 else 3)
        for page in tiff.pages:
            assert page.is_tiled
            assert page.tile == (32, 32)
            assert page.compression == code
            assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
            assert (page.imagelength, page.imagewidth, page.samplesperpixel) == (90, 130, 1)
        assert tiff.series[0].axes == ("YX" if len(shape) == 2 else "CYX")


def test_tiles_lie_apart_from_each_other_within_the_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9, (2, 100, 100), "uint8")
    path = tmp_path / "a.tif"
    write(TiffSink(path, tile=16), pixels, plan_of(pixels, 33, 21))
    with tifffile.TiffFile(path) as tiff:
        places = sorted(
            (offset, offset + size)
            for page in tiff.pages
            for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True)
        )
    assert len(places) == 2 * 49
    assert all(end <= start for (_, end), (start, _) in pairwise(places))
    assert places[-1][1] <= path.stat().st_size


@pytest.mark.parametrize(("shape", "dtype"), [((50, 70), "uint8"), ((50, 70), "uint16"), ((4, 50, 70), "float32")])
@pytest.mark.parametrize("name", ["a.ome.tif", "a.OME.TIFF"])
def test_an_ome_name_gives_ome_xml_that_describes_the_pixels(tmp_path, name, shape, dtype):
    pixels = np.zeros(shape, dtype)
    write(TiffSink(tmp_path / name), pixels, plan_of(pixels, 50, 70))
    with tifffile.TiffFile(tmp_path / name) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].kind == "ome"
        assert tiff.series[0].axes == ("CYX" if len(shape) == 3 else "YX")
        root = ET.fromstring(tiff.ome_metadata)
    described = root.find(f"{OME}Image/{OME}Pixels")
    channels = shape[0] if len(shape) == 3 else 1
    sizes = {"SizeX": "70", "SizeY": "50", "SizeC": str(channels), "SizeZ": "1", "SizeT": "1"}
    assert sizes.items() <= described.attrib.items()
    assert described.attrib["Type"] == {"float32": "float"}.get(dtype, dtype)
    assert len(described.findall(f"{OME}Channel")) == channels


def test_a_plain_name_gives_no_ome_xml(tmp_path):
    pixels = np.zeros((20, 20), "uint8")
    write(TiffSink(tmp_path / "home.tif"), pixels, plan_of(pixels, 20, 20))
    with tifffile.TiffFile(tmp_path / "home.tif") as tiff:
        assert not tiff.is_ome


def test_default_tiles_are_512_for_labels_and_256_for_channels(tmp_path):
    for shape, tile in (((600, 600), 512), ((2, 600, 600), 256)):
        pixels = np.zeros(shape, "float32")
        write(TiffSink(tmp_path / f"{tile}.tif"), pixels, plan_of(pixels, 600, 600))
        with tifffile.TiffFile(tmp_path / f"{tile}.tif") as tiff:
            assert tiff.pages[0].tile == (tile, tile)


def test_equal_runs_give_equal_files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 3, (300, 400), "uint8")
    for name in ("a.tif", "b.tif"):
        write(TiffSink(tmp_path / name, tile=32, workers=3), pixels, plan_of(pixels, 100, 90))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("options", [{"tile": 100}, {"tile": 0}, {"compression": "jpeg"}, {"workers": 0}])
def test_options_that_no_file_can_have_are_refused(tmp_path, options):
    with pytest.raises(OptionError, match=str(next(iter(options.values())))):
        TiffSink(tmp_path / "a.tif", **options)


def test_pixels_that_tiff_readers_do_not_know_are_refused(tmp_path):
    with pytest.raises(SinkError, match="int64"):
        TiffSink(tmp_path / "a.tif").begin(ResultSpec(height=9, width=9, channels=0, dtype="int64"))
    assert list(tmp_path.iterdir()) == []


@st.composite
def axis_spans(draw, size: int) -> list[Span]:
    cuts = sorted(draw(st.sets(st.integers(1, size), max_size=8)) - {size})
    return [Span(start, stop) for start, stop in zip([0, *cuts], [*cuts, size], strict=True)]


def test_foretelling_open_tiles_of_many_small_boxes_takes_hardly_any_memory():
    """25 million boxes, as the smallest tiles of a large image are; there are 1600 tiles of the file."""
    plan = WritePlan(rows=spans(20_000, 4), columns=spans(20_000, 4))
    grid = TileGrid(height=20_000, width=20_000, tile_px=512)
    tracemalloc.start()
    try:
        # A row of tiles is open, and with the last boxes of its last row the next one is not yet.
        assert most_open_tiles(plan, grid) == 40 + 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=120, deadline=None)
@given(data=st.data(), height=st.integers(1, 60), width=st.integers(1, 60), tile=st.sampled_from((4, 7, 16)))
def test_open_tiles_are_foretold_as_a_replay_pixel_by_pixel_finds_them(data, height, width, tile):
    """Replay: a tile is held while some but not all of its pixels are written, and while its last are."""
    plan = WritePlan(rows=data.draw(axis_spans(height)), columns=data.draw(axis_spans(width)))
    tiles = [np.s_[y : y + tile, x : x + tile] for y in range(0, height, tile) for x in range(0, width, tile)]
    written = np.zeros((height, width), bool)
    most = 0
    for rows in plan.rows:
        for columns in plan.columns:
            before = [written[one].any() and not written[one].all() for one in tiles]
            written[rows.start : rows.stop, columns.start : columns.stop] = True
            after = [written[one].any() and not written[one].all() for one in tiles]
            most = max(most, sum(np.logical_or(before, after)))
    assert most_open_tiles(plan, TileGrid(height=height, width=width, tile_px=tile)) == most + 1


def peak_bytes(sink: TiffSink, pixels: np.ndarray, plan: WritePlan) -> int:
    tracemalloc.start()
    try:
        write(sink, pixels, plan)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


OBJECTS_BYTES = 400_000  # Python objects, tags, buffered files


@pytest.mark.parametrize("compression", ["zlib", "lzw", "none"])
@pytest.mark.parametrize(
    ("shape", "dtype", "box", "tile"),
    [
        ((1500, 4000), "uint8", (333, 400), 256),
        ((1500, 4000), "uint8", (100, 4000), 512),
        ((5, 700, 1000), "float32", (300, 170), 128),
        ((1024, 1024), "uint16", (1024, 1024), 256),
    ],
)
def test_memory_stays_within_buffer_bytes(tmp_path, shape, dtype, box, tile, compression):
    """The oracle is the allocator's own count; noise is the worst case of every codec."""
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    plan = plan_of(pixels, *box)
    write(
        TiffSink(tmp_path / "warm_up.tif", compression=compression),
        pixels[..., :9, :9],
        plan_of(pixels[..., :9, :9], 9, 9),
    )
    sink = TiffSink(tmp_path / "a.tif", compression=compression, tile=tile)
    bound_bytes = sink.buffer_bytes(spec_of(pixels), plan)
    measured_bytes = peak_bytes(sink, pixels, plan)
    assert measured_bytes <= bound_bytes + OBJECTS_BYTES
    assert bound_bytes <= 3 * measured_bytes + 9_000_000  # a queue seldom full, codecs' state that is not counted here


@pytest.mark.parametrize("compression", ["zlib", "zstd", "lzw", "none"])
@pytest.mark.parametrize("edge", [16, 512])
def test_no_codec_makes_noise_larger_than_foretold(compression, edge):
    tile = np.random.default_rng(0).integers(0, 256, (edge, edge), "uint8")
    encoded = tile_encoder(compression, tile.dtype)(tile)
    assert len(encoded) <= most_encoded_bytes(tile.nbytes) <= 2 * tile.nbytes + 5000


def test_memory_does_not_grow_with_the_height_but_for_the_tile_tables():
    sink = TiffSink("unused.tif", tile=256, pyramid=False)
    low, high = (
        sink.buffer_bytes(
            ResultSpec(height=height, width=20_000, channels=0, dtype="uint8"),
            WritePlan(rows=spans(height, 832), columns=spans(20_000, 1000)),
        )
        for height in (20_000, 100_000)
    )
    assert high - low < 4_000_000 < low < 30_000_000


def test_rows_of_boxes_that_end_with_file_tiles_need_no_row_of_raw_tiles():
    spec = ResultSpec(height=10_000, width=50_000, channels=0, dtype="uint8")
    aligned, unaligned = (
        TiffSink("unused.tif").buffer_bytes(spec, WritePlan(rows=spans(10_000, rows), columns=spans(50_000, 1000)))
        for rows in (1024, 1000)
    )
    assert unaligned - aligned > 90 * 512 * 512


@pytest.mark.parametrize(
    ("shape", "dtype", "box", "tile"),
    [((2048, 4096), "uint8", (1024, 1024), 256), ((30, 384, 512), "float32", (128, 128), 128)],
)
def test_a_slow_encoder_holds_writing_back(tmp_path, monkeypatch, shape, dtype, box, tile):
    def slow(*_):
        def encode(tile: np.ndarray) -> bytes:
            time.sleep(0.002)
            return tile.tobytes()

        return encode

    monkeypatch.setattr(tiff_module, "tile_encoder", slow)
    pixels = np.zeros(shape, dtype)
    plan = plan_of(pixels, *box)
    sink = TiffSink(tmp_path / "a.tif", compression="none", tile=tile)
    without_codecs_bytes = sink.buffer_bytes(spec_of(pixels), plan) - (4 << 20)
    assert peak_bytes(sink, pixels, plan) <= without_codecs_bytes + OBJECTS_BYTES
    assert without_codecs_bytes + OBJECTS_BYTES < pixels.nbytes / 3


@pytest.mark.parametrize("channels", [0, 3])
def test_arrays_that_go_round_are_read_by_nobody(tmp_path, monkeypatch, channels):
    """They are overwritten as soon as they are given back; given back too early, the file is another one."""
    shape = (channels, 300, 280) if channels else (300, 280)
    pixels = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    options = {"tile": 32, "workers": 3, "pyramid": True, "resumable": True}

    def written(name: str) -> bytes:
        write(TiffSink(tmp_path / f"{name}.ome.tif", **options), pixels, plan_of(pixels, 100, 90))
        path = (tmp_path / f"{name}.ome.tif").rename(tmp_path / "a.ome.tif")
        return path.read_bytes()

    expected = written("plain")
    give, completed = TileArrays.give, Pyramid.completed

    def give_overwritten(arrays, array) -> None:
        array.fill(0xEE)
        give(arrays, array)

    monkeypatch.setattr(TileArrays, "give", give_overwritten)
    assert written("overwritten") == expected

    def completed_and_given(pyramid, level, tile, array):
        yield from completed(pyramid, level, tile, array)
        pyramid._arrays.give(array)

    monkeypatch.setattr(Pyramid, "completed", completed_and_given)
    assert written("too early") != expected


def test_tiles_beyond_four_gigabytes_are_found(tmp_path):
    """The file has a hole of 5 GB, which takes no space, in place of that many tiles."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 100, 100), "uint8")
    sink = TiffSink(tmp_path / "a.tif", tile=32)
    sink.begin(spec_of(pixels))
    assert sink._store is not None
    sink._store._end_bytes = 5 << 30
    sink.write(Box(Span(0, 100), Span(0, 100)), pixels)
    sink.finish()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels, strict=True)
