"""Series, planes and levels are chosen by number or by pixel size, and never guessed."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile

from exactile.errors import OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from exactile.sources.tiff.pixel_size import level_pixel_sizes
from exactile.sources.tiff.source import TiffSource
from tests.support.tiff_files import ASCII, BYTES, LONG, SHORT, image_tags, strip_tags, write_tiff

SIZES = {"T": 3, "C": 2, "Z": 4, "Y": 33, "X": 45, "S": 3}
BOXES = [Box(Span(0, 33), Span(0, 45)), Box(Span(7, 30), Span(16, 45)), Box(Span(32, 33), Span(44, 45))]


def stack(axes: str, dtype: str = "u2") -> np.ndarray:
    return np.random.default_rng(len(axes)).integers(0, 255, [SIZES[letter] for letter in axes]).astype(dtype)


def plane(array: np.ndarray, axes: str, **positions: int) -> np.ndarray:
    """The oracle: (Y, X, channels) of one plane of an array in memory."""
    for letter, position in positions.items():
        array, axes = array.take(position, axes.index(letter)), axes.replace(letter, "")
    order = [axes.index(letter) for letter in "YX"] + [axes.index(letter) for letter in axes if letter not in "YX"]
    return np.atleast_3d(array.transpose(order))


def assert_reads(image: object, expected: np.ndarray, **options) -> None:
    with closing(open_source(image, **options)) as source:
        assert (source.height, source.width, source.channels) == expected.shape
        assert source.dtype == expected.dtype
        for box in BOXES:
            out = np.full((*box.shape, source.channels), 77, source.dtype)
            source.read(box, out)
            np.testing.assert_array_equal(out, expected[box.slices()])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("TCZ")])
def test_planes_of_an_ome_tiff_in_any_order_of_axes(tmp_path, order, compression):
    axes = order + "YX"
    array = stack(axes)
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, array, metadata={"axes": axes}, compression=compression, tile=(16, 32))
    for z, t in [(0, 0), (3, 1), (2, 2)]:
        expected = plane(tifffile.imread(path), axes, Z=z, T=t)
        np.testing.assert_array_equal(expected, plane(array, axes, Z=z, T=t))
        assert_reads(path, expected, z=z, t=t)
        assert_reads(path, expected[..., [1]], z=z, t=t, channels=[1])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["ZYX", "TYX", "ZCYX", "ZYXS", "TZYXS"])
def test_fewer_axes_and_samples_of_a_pixel(tmp_path, axes, compression):
    path = tmp_path / "image.ome.tif"
    photometric = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(path, stack(axes), metadata={"axes": axes}, compression=compression, photometric=photometric)
    positions = {letter: SIZES[letter] - 1 for letter in axes if letter in "ZT"}
    choice = {letter.lower(): position for letter, position in positions.items()}
    assert_reads(path, plane(stack(axes), axes, **positions), **choice)


@pytest.mark.parametrize("imagej", [True, False])
def test_planes_that_follow_each_other_without_pages_of_their_own(tmp_path, imagej):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stack("TZCYX"), imagej=imagej, metadata={"axes": "TZCYX"}, photometric="minisblack")
    assert_reads(path, plane(stack("TZCYX"), "TZCYX", T=2, Z=1), z=1, t=2)


def test_a_stack_of_planar_colours(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stack("ZSYX"), metadata={"axes": "ZSYX"}, photometric="rgb", planarconfig="separate")
    assert_reads(path, plane(stack("ZSYX"), "ZSYX", Z=2), z=2)


def test_the_axis_that_is_left_becomes_channels_when_told(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stack("TZYX"), metadata={"axes": "TZYX"}, photometric="minisblack")
    assert_reads(path, plane(stack("TZYX"), "TZYX", T=1), t=1, axes="CYX")


def test_without_a_choice_the_error_says_what_is_there_and_which_option_to_use(tmp_path):
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, stack("TCZYX"), metadata={"axes": "TCZYX"})
    with pytest.raises(SourceError, match=r"holds TCZYX of \(3, 2, 4, 33, 45\).*t \(--t\) from 0 to 2 and z \(--z\)"):
        open_source(path)
    with pytest.raises(SourceError, match=r"choose z \(--z\) from 0 to 3, or choose one page"):
        open_source(path, t=1)
    with pytest.raises(OptionError, match="t 3 was requested, but the image has 3"):
        open_source(path, z=0, t=3)
    with pytest.raises(OptionError, match="z -1 was requested"):
        open_source(path, z=-1, t=0)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_of_the_levels_of_a_pyramid(tmp_path, compression):
    array = np.random.default_rng(0).integers(0, 255, (3, 2, 4, 96, 128), dtype=np.uint8)
    path = tmp_path / "image.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"tile": (32, 32), "compression": compression, "photometric": "minisblack"}
        metadata = {"axes": "TCZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        tiff.write(array, subifds=1, metadata=metadata, **options)
        tiff.write(array[..., ::2, ::2], subfiletype=1, **options)
    with tifffile.TiffFile(path) as tiff:
        assert [level.axes for level in tiff.series[0].levels] == ["TCZYX", "TCZYX"]
    assert_reads(path, plane(array, "TCZYX", T=2, Z=3), t=2, z=3)
    for options in ({"level": 1}, {"mpp": 1.0}):
        assert_reads(path, plane(array[..., ::2, ::2], "TCZYX", T=1, Z=2), t=1, z=2, **options)


def test_a_single_plane_is_z_0_and_t_0_and_no_other(tmp_path):
    path = tmp_path / "image.tif"
    np.save(tmp_path / "image.npy", stack("YX"))
    tifffile.imwrite(path, stack("YX"))
    for image in (path, tmp_path / "image.npy", stack("YX")):
        assert_reads(image, stack("YX")[..., None], z=0, t=0, series=0)
        for wrong in ({"z": 1}, {"t": 2}, {"series": 1}):
            with pytest.raises(OptionError, match=r"was requested, but the (image|file) has 1"):
                open_source(image, **wrong)


def test_images_of_a_file_are_chosen_by_series_with_pixel_sizes_of_their_own(tmp_path):
    path = tmp_path / "image.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for index, axes in enumerate(("YX", "CYX")):
            sizes = {"PhysicalSizeX": 0.25 + index, "PhysicalSizeY": 500.0, "PhysicalSizeYUnit": "nm"}
            tiff.write(stack(axes), metadata={"axes": axes, **sizes}, photometric="minisblack")
    assert_reads(path, plane(stack("CYX"), "CYX"), series=1)
    for series in (0, 1):
        with closing(open_source(path, series=series)) as source:
            assert source.pixel_size_um == (0.5, 0.25 + series)
    with pytest.raises(OptionError, match="series 2 was requested, but the file has 2"):
        open_source(path, series=2)


def pixel_size(path: Path, **options) -> tuple[float, float] | None:
    with closing(TiffSource(path, **options)) as source:
        return source.pixel_size_um


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, None),
        ({"resolution": (40000, 20000), "resolutionunit": "NONE"}, None),
        ({"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"resolution": (25400, 25400), "resolutionunit": "INCH"}, (1.0, 1.0)),
        ({"resolution": (0, 25400), "resolutionunit": "INCH"}, None),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}}, (0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "\\u00b5m"}}, (0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "furlong"}}, None),
        ({"description": "Aperio Leica|AppMag = 20|MPP = 0.4942", "metadata": None}, (0.4942, 0.4942)),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.3}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.4}}, (0.4, 0.3)),
        ({"ome": True, "metadata": {"PhysicalSizeX": 3, "PhysicalSizeY": 4, "PhysicalSizeXUnit": "pixel"}}, None),
    ],
)
def test_pixel_sizes_are_read_only_where_their_unit_is_given(tmp_path, arguments, expected):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stack("YX"), **arguments)
    assert pixel_size(path) == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (296, (SHORT, [9])),
        (296, (SHORT, [3, 3])),
        (296, (ASCII, b"cm\0")),
        (282, (SHORT, [7])),
        (283, (ASCII, b"many\0")),
        (283, (BYTES, b"\1\2\3\4\5")),
        (282, (LONG, [5, 0])),
    ],
)
def test_resolutions_that_make_no_sense_leave_the_pixels_readable(tmp_path, tag, value):
    sizes = {282: (LONG, [5, 1]), 283: (LONG, [5, 1]), 296: (SHORT, [3])}
    tags = {**image_tags(16, 16), **strip_tags(16), **sizes, tag: value}
    assert pixel_size(write_tiff(tmp_path / "image.tif", tags, [bytes(256)])) is None


@pytest.mark.parametrize(
    "document", ["<OME", "<OME><Image/></OME>", "<OME><Image><Pixels PhysicalSizeX='x'/></Image></OME>"]
)
def test_ome_xml_that_makes_no_sense_gives_no_pixel_size(tmp_path, document):
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, stack("YX"), metadata={"axes": "YX", "PhysicalSizeX": 1, "PhysicalSizeY": 1})
    with tifffile.TiffFile(path) as tiff, pytest.MonkeyPatch.context() as patch:
        assert len(tiff.series) == 1  # found before the document is replaced
        patch.setattr(tifffile.TiffFile, "ome_metadata", document)
        assert level_pixel_sizes(tiff, 0) == [None]


def test_one_page_has_the_resolution_of_its_own_tags(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stack("YX"), resolution=(10000, 5000), resolutionunit="CENTIMETER")
    assert pixel_size(path, page=0) == (2.0, 1.0)


@pytest.fixture
def pyramid(tmp_path) -> Path:
    """Levels of 0.25, 0.5 and 1 micrometres a pixel."""
    path = tmp_path / "image.tif"
    full = np.random.default_rng(0).integers(0, 255, (320, 480), dtype=np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(full, subifds=2, tile=(64, 64), resolution=(40000, 40000), resolutionunit="CENTIMETER")
        for step in (2, 4):
            tiff.write(np.ascontiguousarray(full[::step, ::step]), subfiletype=1, tile=(64, 64))
    return path


@pytest.mark.parametrize(("mpp", "level"), [(0.25, 0), (0.2625, 0), (0.48, 1), (0.52, 1), (1, 2), (0.96, 2)])
def test_microns_per_pixel_choose_the_level_within_five_percent(pyramid, mpp, level):
    with closing(open_source(pyramid, mpp=mpp)) as source, closing(open_source(pyramid, level=level)) as same:
        assert (source.height, source.width) == (320 >> level, 480 >> level)
        assert source.pixel_size_um == same.pixel_size_um == pytest.approx((0.25 * 2**level,) * 2)
        assert source.identity() == same.identity()


def test_microns_per_pixel_that_no_level_has_are_refused_with_those_there_are(pyramid, tmp_path):
    with pytest.raises(
        OptionError, match=r"0\.7 microns.*within 5%: level 0 has 0\.25, level 1 has 0\.5, level 2 has 1;"
    ):
        open_source(pyramid, mpp=0.7)
    with pytest.raises(OptionError, match="both choose a level"):
        open_source(pyramid, mpp=0.5, level=1)
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="positive number"):
            open_source(pyramid, mpp=wrong)
    tifffile.imwrite(tmp_path / "plain.tif", stack("YX"))
    for image in (tmp_path / "plain.tif", stack("YX")):
        with pytest.raises(OptionError, match=r"0\.5 microns per pixel were requested, but"):
            open_source(image, mpp=0.5)


def write_npy(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


@pytest.mark.parametrize("write", [write_npy, tifffile.imwrite], ids=["npy", "tiff"])
def test_a_file_is_known_again_until_it_changes(tmp_path, write):
    path = tmp_path / "image"
    write(path, stack("YXS"))
    os.utime(path, ns=(10**18, 10**18))

    def identity(**options):
        with closing(open_source(path, **options)) as source:
            return json.loads(json.dumps(source.identity()))

    first = identity()
    assert first == identity()
    assert first != identity(channels=[2, 1, 0])
    assert (first["size_bytes"], first["mtime_ns"]) == (path.stat().st_size, 10**18)
    os.utime(path, ns=(10**18, 10**18 + 1))
    assert first != identity()
    for place in (-1, -3000):
        changed = bytearray(path.read_bytes())
        changed[place] ^= 1
        path.write_bytes(changed)
        os.utime(path, ns=(10**18, 10**18))
        assert first != identity()


def test_planes_and_levels_of_one_file_have_identities_of_their_own(tmp_path, pyramid):
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, stack("TZYX"), metadata={"axes": "TZYX"}, photometric="minisblack")
    found = set()
    for image, options in [(path, {"z": z, "t": t}) for z in (0, 1) for t in (0, 1)] + [(pyramid, {"level": 1})]:
        with closing(open_source(image, **options)) as source:
            found.add(json.dumps(source.identity()))
    assert len(found) == 5


def test_an_array_is_known_by_samples_shape_and_dtype():
    array = stack("YXS")
    changed = array.copy()
    changed[20, 20, 1] += 1
    others = [changed, array.astype("f4"), array.reshape(45, 33, 3), array[..., ::-1]]
    identities = [json.dumps(open_source(one).identity()) for one in [array, *others]]
    assert len(set(identities)) == 5
    assert json.dumps(open_source(array[::-1][::-1]).identity()) == identities[0]


def test_a_large_array_is_known_by_samples_spread_over_it():
    large = np.zeros((3000, 3000), np.uint16)
    first = open_source(large).identity()
    large[1400:1600] = 1
    assert open_source(large).identity() != first
