"""Whole slides: Aperio's as TIFF, others with OpenSlide and with exactly its pixels."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from contextlib import closing

import numpy as np
import onnx
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.open import open_source
from exactile.sources.protocol import ReadPlan
from exactile.sources.slide.blocks import on_background
from exactile.sources.slide.source import SlideSource
from exactile.sources.tiff.source import TiffSource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import onnx_bytes
from tests.support.slides import damage_tile, tissue, write_scn, write_svs, write_ycbcr_svs

HEIGHT, WIDTH = 1403, 1702


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("slides")


@pytest.fixture(scope="module")
def svs(folder):
    """Levels of 1403 x 1702 and 350 x 425 pixels: 4.004 times smaller by OpenSlide's reckoning."""
    return write_svs(folder / "a.svs", tissue(HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def scn(folder):
    """1600 x 1200 pixels, of which 800 x 600 in the middle are there."""
    return write_scn(folder / "a.scn", tissue(800, 600))


@pytest.fixture(scope="module")
def generic(folder):
    path = folder / "generic.tif"
    tifffile.imwrite(path, tissue(HEIGHT, WIDTH), tile=(256, 256), compression="zlib", photometric="rgb",
                     resolution=(20000, 10000), resolutionunit="CENTIMETER")  # fmt: skip
    return path


def openslide_level(path, level: int = 0) -> np.ndarray:
    """The oracle: a whole level in one piece, RGBA."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))


def read(source, box: Box | None = None) -> np.ndarray:
    box = box or Box(Span(0, source.height), Span(0, source.width))
    out = np.full((*box.shape, source.channels), 77, source.dtype)
    source.read(box, out)
    return out


def boxes_of(height: int, width: int) -> list[Box]:
    return [
        Box(Span(0, height), Span(0, width)),
        Box(Span(height // 3, height - 5), Span(7, width // 2)),
        Box(Span(height - 1, height), Span(0, width)),
        Box(Span(0, height), Span(width - 1, width)),
        Box(Span(5, 5), Span(0, width)),
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_pixels_are_openslides(generic, svs, workers):
    for path in (generic, svs):
        whole = openslide_level(path)[..., :3]
        with closing(SlideSource(path, workers=workers)) as source:
            assert (source.height, source.width, source.channels) == (HEIGHT, WIDTH, 3) == whole.shape
            for box in boxes_of(HEIGHT, WIDTH):
                np.testing.assert_array_equal(read(source, box), whole[box.slices()])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_boxes_in_any_order_are_slices_of_the_slide(generic, data):
    image = tissue(HEIGHT, WIDTH)
    with closing(SlideSource(generic, channels=[2, 0])) as source:
        for _ in range(data.draw(st.integers(1, 4))):
            y = sorted(data.draw(st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT))))
            x = sorted(data.draw(st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH))))
            box = Box(Span(*y), Span(*x))
            np.testing.assert_array_equal(read(source, box), image[box.slices()][..., [2, 0]])


def test_a_pixel_of_a_reduced_level_has_one_value_whatever_box_it_is_read_with(folder):
    """OpenSlide itself interpolates between pixels, differently for every region, at such levels."""
    path = write_svs(folder / "large.svs", tissue(1205, 6407), steps=(1, 3))
    with openslide.OpenSlide(path) as slide:
        factor = slide.level_downsamples[1]
        assert factor != 3
        first = np.asarray(slide.read_region((0, 0), 1, (960, 401)))
        second = np.asarray(slide.read_region((round(960 * factor), 0), 1, (960, 401)))
    with closing(SlideSource(path, level=1)) as source:
        whole = read(source)
        np.testing.assert_array_equal(whole[:, :960], first[..., :3])
        np.testing.assert_array_equal(whole[:, 960:1920], second[..., :3])
        for box in [Box(Span(a, a + 50), Span(b, b + 333)) for a in (0, 99, 351) for b in (1, 700, 955, 1502)]:
            np.testing.assert_array_equal(read(source, box), whole[box.slices()])


@pytest.mark.parametrize("level", [0, 1])
def test_where_a_slide_has_no_pixels_its_background_shows(scn, level):
    whole = openslide_level(scn, level)
    there = whole[..., 3] == 255
    assert 0 < there.sum() < there.size
    with closing(open_source(scn, level=level)) as source:
        assert isinstance(source, SlideSource)
        pixels = read(source)
        np.testing.assert_array_equal(pixels[there], whole[there][:, :3])
        np.testing.assert_array_equal(pixels[whole[..., 3] == 0], 255)
        for box in boxes_of(source.height, source.width):
            np.testing.assert_array_equal(read(source, box), pixels[box.slices()])


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 33)])
def test_half_transparent_pixels_are_mixed_with_the_background(background):
    alpha, value = np.mgrid[0:256, 0:256].astype(np.uint8)
    mixed = on_background(np.stack([value, value, value, alpha], axis=-1), background)
    share = alpha[..., None] / 255
    expected = value[..., None] * share + np.array(background) * (1 - share)
    assert np.abs(mixed - expected).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(mixed[255, :, 0], np.arange(256))


def test_a_named_background_is_used(scn, monkeypatch):
    properties = {**dict(openslide.OpenSlide(scn).properties), "openslide.background-color": "0A141E"}
    monkeypatch.setattr(openslide.OpenSlide, "properties", properties)
    with closing(open_source(scn)) as source:
        np.testing.assert_array_equal(read(source, Box(Span(0, 2), Span(0, 2))), np.full((2, 2, 3), (10, 20, 30)))


def test_aperio_and_plain_tiff_are_read_as_tiff_with_tifffiles_pixels(svs, generic):
    for path, levels in ((svs, 2), (generic, 1)):
        for level in range(levels):
            with closing(open_source(path, level=level)) as source, tifffile.TiffFile(path) as tiff:
                assert isinstance(source, TiffSource)
                np.testing.assert_array_equal(read(source), tiff.series[0].levels[level].asarray())


def test_aperio_slides_that_hide_their_colour_space_are_read_with_openslide(tmp_path):
    """As a TIFF file it would have luma and chroma for red, green and blue."""
    image = tissue(500, 600)
    path = write_ycbcr_svs(tmp_path / "a.svs", image)
    with closing(open_source(path)) as source:
        pixels = read(source)
    np.testing.assert_array_equal(pixels, openslide_level(path)[..., :3])
    assert np.abs(pixels.astype(int) - image).max() <= 2
    assert np.abs(tifffile.imread(path).astype(int) - image).max() > 99


def test_both_readers_of_an_aperio_slide_agree_on_levels_and_pixel_sizes(svs):
    for options in ({"level": 0}, {"level": 1}, {"mpp": 0.5}, {"mpp": 2}):
        with closing(open_source(svs, **options)) as one, closing(SlideSource(svs, **options)) as other:
            assert (one.height, one.width) == (other.height, other.width)
            assert one.pixel_size_um == pytest.approx(other.pixel_size_um)
    for opened in (open_source, SlideSource):
        with pytest.raises(OptionError, match=r"1 microns.*within 5%: level 0 has 0\.5, level 1 has 2\.00"):
            opened(svs, mpp=1)


def test_pixel_sizes_of_openslide_are_height_and_width(generic, scn):
    with closing(SlideSource(generic)) as source:
        assert source.pixel_size_um == (1.0, 0.5)
    with closing(SlideSource(scn)) as source:
        assert source.pixel_size_um is None
    with pytest.raises(OptionError, match="does not say how large its pixels are"):
        open_source(scn, mpp=0.5)


def test_each_block_is_decoded_once_within_the_bytes_asked_for(generic):
    image = tissue(HEIGHT, WIDTH)
    plan = ReadPlan(
        rows=[Span(max(0, y - 40), min(HEIGHT, y + 440)) for y in range(0, HEIGHT, 400)],
        columns=[Span(max(0, x - 40), min(WIDTH, x + 440)) for x in range(0, WIDTH, 400)],
    )
    with closing(SlideSource(generic, workers=2)) as source:
        granted = source.cache_bytes(plan)
        source.prepare(plan, cache_bytes=granted)
        for rows, columns in itertools.product(plan.rows, plan.columns):
            box = Box(rows, columns)
            np.testing.assert_array_equal(read(source, box), image[box.slices()])
        assert source.count().chunks_decoded == source.count().chunks_stored == 2 * 2
        assert source._reader._cache.peak_bytes + 2 * 1024 * 1024 * 17 <= granted
        assert source._reader._cache.held_bytes == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_damage_is_reported_by_file_and_region_and_the_rest_is_read(tmp_path, workers):
    path = write_scn(tmp_path / "a.scn", tissue(1300, 1200))
    damage_tile(path, page=1, tile=0)
    expected = openslide_level(write_scn(tmp_path / "b.scn", tissue(1300, 1200)))
    with closing(open_source(path, workers=workers)) as source:
        for _ in range(2):
            with pytest.raises(SourceError, match=r"a\.scn: level 0, pixels y 0:1024, x 0:1024 cannot be read: \w"):
                read(source)
            rest = Box(Span(1024, 1950), Span(0, 1800))
            np.testing.assert_array_equal(
                read(source, rest), np.where(expected[..., 3:] == 0, 255, expected[..., :3])[rest.slices()]
            )


def test_a_file_named_like_a_slide_that_is_none_is_reported(tmp_path):
    for name in ("a.mrxs", "a.vms"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0 nothing")
        with pytest.raises(SourceError, match=rf"{name}: cannot be opened by OpenSlide: \w"):
            open_source(tmp_path / name)


def test_a_truncated_slide_is_reported(scn, tmp_path):
    (tmp_path / "a.scn").write_bytes(scn.read_bytes()[:-5000])
    with pytest.raises(SourceError, match=r"a\.scn"), closing(open_source(tmp_path / "a.scn")) as source:
        read(source)


def test_choices_that_a_slide_does_not_have_are_refused(scn):
    for options in ({"level": 2}, {"series": 1}, {"z": 1}, {"t": 1}, {"axes": "CYX"}, {"workers": 0}):
        with pytest.raises(OptionError):
            open_source(scn, **options)
    with pytest.raises(ChannelError, match="channel 3 was requested, but the image has 3"):
        open_source(scn, channels=[3])


def test_closed_slides_read_nothing_more(scn):
    source = open_source(scn)
    source.close()
    source.close()
    with pytest.raises(SourceError, match="read after close"):
        read(source)


def test_without_openslide_the_error_says_what_to_install(scn, svs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0")
    for path in (scn, tmp_path / "a.mrxs"):
        with pytest.raises(SourceError, match=r"is a whole slide.*pip install 'exactile\[slides\]'"):
            open_source(path)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(SourceError, match="JPEG picture"):
        open_source(tmp_path / "a.jpg")
    open_source(svs).close()


def test_a_slide_is_known_again_until_it_or_a_file_beside_it_changes(scn, tmp_path):
    path = tmp_path / "a.scn"
    shutil.copy(scn, path)

    def identity(**options) -> str:
        with closing(open_source(path, **options)) as source:
            return json.dumps(source.identity())

    found = [identity(), identity(level=1), identity(channels=[0])]
    assert found[0] == identity()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixels")
    found.append(identity())
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"others")
    os.utime(tmp_path / "a" / "Data0000.dat", ns=(1, 1))
    found.append(identity())
    assert len(set(found)) == 5


def test_labels_from_a_slide_are_those_from_the_same_pixels_in_memory(scn):
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet_d2")
    deployed = deploy(network, image_dtype="uint8", output="labels")
    pixels = openslide_level(scn, 1)
    pixels = np.where(pixels[..., 3:] == 0, np.uint8(255), pixels[..., :3])
    labels = []
    for source in (open_source(scn, level=1), ArraySource(pixels)):
        sink = ArraySink()
        Session(deployed, memory_bytes=8 << 30).segment(source, sink, plan="tile", tile=(256, 256))
        labels.append(sink.result)
        source.close()
    np.testing.assert_array_equal(*labels)
