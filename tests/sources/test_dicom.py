"""Whole slides in DICOM files: exactly wsidicom's pixels, and pydicom's where it decodes the frames."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import warnings
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from wsidicom import WsiDicom
from wsidicom.config import Settings, set_default_settings
from wsidicom.options import ConcatenationByBytes, ConcatenationByFrames, InstanceSplit

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.dicom.files import is_dicom_image
from exactile.sources.dicom.source import DicomSource
from exactile.sources.open import open_source
from exactile.sources.protocol import ReadPlan
from tests.support.dicom_slides import LOSSLESS, NATIVE, Level, Slide, dataset, encode, save, write, write_parts
from tests.support.slides import tissue

HEIGHT, WIDTH = 150, 203
RGB = tissue(HEIGHT, WIDTH)[None, None]
GREY = np.ascontiguousarray(RGB[..., 0])
DEEP = (GREY.astype(np.uint16) * 257) ^ np.random.default_rng(1).integers(0, 256, GREY.shape).astype(np.uint16)
PYDICOM = (*NATIVE, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEG2000, uid.JPEGBaseline8Bit)
"""Transfer syntaxes that pydicom decodes with what is installed for tests."""

FORMS = [
    *((syntax, RGB, "RGB") for syntax in (*LOSSLESS, uid.JPEGBaseline8Bit)),
    *((syntax, GREY, "MONOCHROME2") for syntax in (*LOSSLESS, uid.JPEGBaseline8Bit)),
    *((syntax, DEEP, "MONOCHROME2") for syntax in LOSSLESS if syntax != uid.RLELossless),
    (uid.JPEGBaseline8Bit, RGB, "YBR_FULL_422"),
    (uid.JPEG2000Lossless, RGB, "YBR_RCT"),
    (uid.JPEG2000, RGB, "YBR_ICT"),
]


def identifier(form) -> str:
    syntax, pixels, colours = form
    return f"{syntax.keyword}-{colours}-{pixels.dtype.itemsize * 8}"


def read(source, box: Box | None = None) -> np.ndarray:
    box = box or Box(Span(0, source.height), Span(0, source.width))
    out = np.full((*box.shape, source.channels), 77, source.dtype)
    source.read(box, out)
    return out


def opened(path, **options) -> np.ndarray:
    with closing(open_source(path, **options)) as source:
        assert isinstance(source, DicomSource)
        return read(source)


def wsidicom_level(slide_path, number: int = 0, *, pyramid: int = 0, **place) -> np.ndarray:
    """The oracle: a whole level in one piece, (H, W, C)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with WsiDicom.open(slide_path) as slide:
            slide.set_selected_pyramid(pyramid)
            level = slide.pyramids[pyramid][number]
            image = slide.read_region((0, 0), level.level, level.size.to_tuple(), **place)
            return np.asarray(image).reshape(level.size.height, level.size.width, -1)


def pydicom_level(path, level: Level) -> np.ndarray:
    """Another oracle: the frames of the one optical path and focal plane of a file, put together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = pixel_array(path)
    rows, columns = -(-HEIGHT // level.tile[0]), -(-WIDTH // level.tile[1])
    grid = frames.reshape(rows, columns, *level.tile, -1)
    return np.concatenate([np.concatenate(list(row), axis=1) for row in grid])[:HEIGHT, :WIDTH]


def boxes_of(height: int, width: int) -> list[Box]:
    return [
        Box(Span(height // 3, height - 5), Span(7, width // 2)),
        Box(Span(height - 1, height), Span(0, width)),
        Box(Span(0, height), Span(width - 1, width)),
        Box(Span(5, 5), Span(0, width)),
    ]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Levels of 150 x 203 and 75 x 101 pixels, a label and an overview in one folder."""
    folder, common = tmp_path_factory.mktemp("slides") / "1.2.840.77", Slide()
    folder.mkdir()
    write(folder / "small.dcm", Level(pixels=RGB[:, :, :150:2, :202:2], spacing_mm=0.001), common)
    write(folder / "large.dcm", Level(pixels=RGB), common)
    write(folder / "label.dcm", Level(pixels=RGB[:, :, :20, :30], tile=(20, 30), kind="LABEL"), common)
    write(folder / "overview.dcm", Level(pixels=RGB[:, :, :64, :48], tile=(64, 48), kind="OVERVIEW"), common)
    return folder


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
@pytest.mark.parametrize("form", FORMS, ids=map(identifier, FORMS))
def test_pixels_are_wsidicoms_and_pydicoms_in_every_encoding(tmp_path, form, sparse):
    syntax, pixels, colours = form
    level = Level(pixels=pixels, syntax=syntax, photometric=colours, sparse=sparse)
    path = write(tmp_path / "a.dcm", level, Slide())
    for workers in (1, 3):
        with closing(open_source(path, workers=workers)) as source:
            found = read(source)
            assert found.dtype == pixels.dtype
            for box in boxes_of(HEIGHT, WIDTH):
                np.testing.assert_array_equal(read(source, box), found[box.slices()])
    np.testing.assert_array_equal(found, wsidicom_level(path))
    if syntax in LOSSLESS:
        np.testing.assert_array_equal(found, pixels[0, 0].reshape(found.shape))
    if syntax in PYDICOM:
        np.testing.assert_array_equal(found, pydicom_level(path, level))


@pytest.mark.parametrize(
    "syntax", [s for s in LOSSLESS if s not in (*NATIVE, uid.RLELossless)], ids=lambda s: s.keyword
)
def test_no_bit_of_12_is_lost(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", Level(pixels=DEEP >> 4, bits_stored=12, syntax=syntax), Slide())
    np.testing.assert_array_equal(opened(path)[..., 0], DEEP[0, 0] >> 4)


def test_jpeg_of_12_bits_and_near_lossless_jpeg_ls_are_what_their_decoders_make_of_them(tmp_path):
    path = write(tmp_path / "a.dcm", Level(pixels=DEEP >> 4, bits_stored=12, syntax=uid.JPEGExtended12Bit), Slide())
    np.testing.assert_array_equal(opened(path), wsidicom_level(path))
    assert np.abs(opened(path)[..., 0].astype(int) - (DEEP[0, 0] >> 4)).max() < 64
    level, near = Level(pixels=GREY, syntax=uid.JPEGLSNearLossless), tmp_path / "b.dcm"
    frames = [(place, imagecodecs.jpegls_encode(tile, level=2)) for place, tile in level.tiles()]
    save(near, dataset(level, Slide(), frames))
    np.testing.assert_array_equal(opened(near), pydicom_level(near, level))
    assert np.abs(opened(near)[..., 0].astype(int) - GREY[0, 0]).max() == 2


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
@pytest.mark.parametrize(
    ("syntax", "colours"),
    [
        (uid.JPEGBaseline8Bit, "YBR_FULL_422"),
        (uid.JPEGBaseline8Bit, "RGB"),
        (uid.JPEG2000, "YBR_ICT"),
        (uid.JPEG2000Lossless, "RGB"),
        (uid.ExplicitVRLittleEndian, "RGB"),
    ],
)
def test_openslide_with_decoders_of_its_own_has_the_same_pixels(tmp_path, syntax, colours, sparse):
    common, form = Slide(), {"syntax": syntax, "photometric": colours, "sparse": sparse}
    write(tmp_path / "a.dcm", Level(pixels=RGB, **form), common)
    write(tmp_path / "b.dcm", Level(pixels=RGB[:, :, :150:2, :202:2], spacing_mm=0.001, **form), common)
    with openslide.OpenSlide(tmp_path / "a.dcm") as other:
        whole = np.asarray(other.read_region((0, 0), 0, other.dimensions))
    np.testing.assert_array_equal(opened(tmp_path), whole[..., :3])
    assert (whole[..., 3] == 255).all()


@pytest.mark.parametrize("tables", ["basic", "extended", "empty"])
def test_frames_are_found_by_every_table_of_offsets(tmp_path, tables):
    path = write(tmp_path / "a.dcm", Level(pixels=RGB, syntax=uid.JPEG2000Lossless, tables=tables), Slide())
    np.testing.assert_array_equal(opened(path), RGB[0, 0])


@pytest.mark.parametrize("tile", [(1, 203), (150, 1), (512, 512), (33, 61)])
def test_tiles_of_any_size_make_the_same_image(tmp_path, tile):
    for syntax in (uid.RLELossless, uid.ExplicitVRLittleEndian):
        path = write(tmp_path / "a.dcm", Level(pixels=GREY, tile=tile, syntax=syntax), Slide())
        np.testing.assert_array_equal(opened(path)[..., 0], GREY[0, 0])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_boxes_in_any_order_are_slices_of_the_slide(slide, data):
    with closing(open_source(slide, channels=[2, 0], workers=3)) as source:
        for _ in range(data.draw(st.integers(1, 4))):
            y = sorted(data.draw(st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT))))
            x = sorted(data.draw(st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH))))
            box = Box(Span(*y), Span(*x))
            np.testing.assert_array_equal(read(source, box), RGB[0, 0][box.slices()][..., [2, 0]])


def test_a_folder_opens_all_levels_from_the_largest_and_leaves_label_and_overview_alone(slide):
    for options in ({}, {"level": 1}, {"mpp": 0.5}, {"mpp": 1}):
        with closing(open_source(slide, **options)) as source:
            number = int(options in ({"level": 1}, {"mpp": 1}))
            np.testing.assert_array_equal(read(source), wsidicom_level(slide, number))
            assert source.pixel_size_um == pytest.approx((0.5, 0.5) if number == 0 else (1, 1))
            assert source.metadata.told == ()
    with pytest.raises(OptionError, match="level 2 was requested, but the file has 2"):
        open_source(slide, level=2)
    with pytest.raises(OptionError, match=r"within 5%: level 0 has 0\.5, level 1 has 1"):
        open_source(slide, mpp=2)


def test_a_level_without_pixel_spacing_has_that_of_the_largest_by_its_size(tmp_path):
    common = Slide()
    write(tmp_path / "a.dcm", Level(pixels=RGB), common)
    write(tmp_path / "b.dcm", Level(pixels=RGB[:, :, ::2, ::2]), common, SharedFunctionalGroupsSequence=None)
    with closing(open_source(tmp_path, level=1)) as source:
        assert source.pixel_size_um == pytest.approx((1, 203 / 204))
    write(tmp_path / "a.dcm", Level(pixels=RGB), common, SharedFunctionalGroupsSequence=None)
    with closing(open_source(tmp_path)) as source:
        assert source.pixel_size_um is None


def test_one_file_opens_the_level_in_it(slide):
    with closing(open_source(slide / "small.dcm")) as source:
        np.testing.assert_array_equal(read(source), wsidicom_level(slide, 1))
    with pytest.raises(OptionError, match="level 1 was requested"):
        open_source(slide / "small.dcm", level=1)


def test_levels_need_not_be_powers_of_two(tmp_path):
    common = Slide()
    for step in (1, 3, 7):
        write(tmp_path / f"{step}.dcm", Level(pixels=RGB[:, :, ::step, ::step], spacing_mm=0.0005 * step), common)
    for level, step in enumerate((1, 3, 7)):
        np.testing.assert_array_equal(opened(tmp_path, level=level), RGB[0, 0, ::step, ::step])


def test_focal_planes_are_chosen_by_z_from_the_lowest(tmp_path):
    stack = np.stack([RGB[0, 0], RGB[0, 0] // 2, RGB[0, 0] // 3])[None]
    for sparse in (False, True):
        path = write(tmp_path / f"{sparse}.dcm", Level(pixels=stack, sparse=sparse), Slide())
        with pytest.raises(SourceError, match=r"holds ZYXC of .3, 150, 203, 3.*choose z \(--z\) from 0 to 2"):
            open_source(path)
        for z in range(3):
            np.testing.assert_array_equal(opened(path, z=z), stack[0, z])
            np.testing.assert_array_equal(opened(path, z=z), wsidicom_level(path, z=1.5 * z))
        with pytest.raises(OptionError, match="z 3 was requested"):
            open_source(path, z=3)


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
@pytest.mark.parametrize("split", [False, True], ids=["one file", "a file each"])
def test_optical_paths_in_grey_are_channels_in_the_order_of_the_files(tmp_path, sparse, split):
    pixels, names, common = np.stack([DEEP[0], DEEP[0] ^ 255, DEEP[0] // 2]), ("DAPI", "Cy5", "A"), Slide()
    if split:
        for number, name in enumerate(names):
            level = Level(pixels=pixels[number : number + 1], paths=(name,), sparse=sparse)
            write(tmp_path / f"{9 - number}.dcm", level, common, InstanceNumber=number)
    else:
        write(tmp_path / "a.dcm", Level(pixels=pixels, paths=names, sparse=sparse), common)
    with closing(open_source(tmp_path, workers=3)) as source:
        np.testing.assert_array_equal(read(source), np.moveaxis(pixels[:, 0], 0, 2))
        assert source.metadata.told == ("channels 0 to 2 are the optical paths DAPI, Cy5, A",)
    np.testing.assert_array_equal(opened(tmp_path, channels=[2, 0, 2]), np.moveaxis(pixels[[2, 0, 2], 0], 0, 2))
    for number, name in enumerate(names):
        np.testing.assert_array_equal(opened(tmp_path, channels=[number]), wsidicom_level(tmp_path, path=name))
    with pytest.raises(ChannelError, match="channel 3 was requested, but the image has 3"):
        open_source(tmp_path, channels=[3])


def test_optical_paths_in_colours_are_series(tmp_path):
    pixels = np.stack([RGB[0], 255 - RGB[0]])
    path = write(tmp_path / "a.dcm", Level(pixels=pixels, paths=("bright", "dark")), Slide())
    for series, name in enumerate(("bright", "dark")):
        with closing(open_source(path, series=series)) as source:
            np.testing.assert_array_equal(read(source), pixels[series, 0])
            np.testing.assert_array_equal(read(source), wsidicom_level(path, path=name))
            assert source.metadata.told == (
                f"this is series {series} of 2 in the slide (--series), optical path {name}",
            )
    with pytest.raises(OptionError, match="series 2 was requested, but the slide has 2"):
        open_source(path, series=2)


def test_another_place_on_the_slide_and_other_colours_are_further_series(tmp_path):
    common = Slide()
    write(tmp_path / "a.dcm", Level(pixels=RGB), common)
    away = dataset(
        Level(pixels=RGB), common, [(place, tile.tobytes()) for place, tile in Level(pixels=RGB // 2).tiles()]
    )
    away.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem = 7.0
    save(tmp_path / "b.dcm", away)
    write(tmp_path / "c.dcm", Level(pixels=GREY, paths=("red",)), common)
    found = [opened(tmp_path, series=series) for series in range(3)]
    for pixels, expected in zip(found, (RGB[0, 0], GREY[0, 0, ..., None], RGB[0, 0] // 2), strict=True):
        np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(found[2], wsidicom_level(tmp_path, pyramid=1))


@pytest.mark.parametrize(("pixels", "shown"), [(RGB, 255), (GREY, 0), (DEEP, 0)], ids=["rgb", "grey", "deep"])
def test_tiles_that_a_sparse_slide_lacks_are_wsidicoms_and_counted(tmp_path, pixels, shown):
    left_out = frozenset({(0, 0, 0, 0), (0, 0, 2, 3), (0, 0, 4, 4)})
    for syntax in (uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless):
        path = write(tmp_path / "a.dcm", Level(pixels=pixels, sparse=True, left_out=left_out, syntax=syntax), Slide())
        with closing(open_source(path)) as source:
            found = read(source)
            np.testing.assert_array_equal(found, wsidicom_level(path))
            assert (found[:32, :48] == shown).all()
            np.testing.assert_array_equal(found[32:64], pixels[0, 0, 32:64].reshape(32, WIDTH, -1))
            assert source.metadata.told[0].startswith("3 of 25 tiles are not stored; they were taken as ")
            assert source.count().chunks_stored == 22


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.JPEGLSLossless], ids=lambda s: s.keyword)
def test_the_parts_of_a_concatenation_are_found_from_any_of_them(tmp_path, sparse, syntax):
    level, common = Level(pixels=RGB, sparse=sparse, syntax=syntax), Slide()
    names = [tmp_path / name for name in ("c.dcm", "a.dcm", "b.dcm")]
    write_parts(names, level, common)
    write(tmp_path / "other.dcm", Level(pixels=RGB[:, :, ::2, ::2], spacing_mm=0.001), common)
    (tmp_path / "damaged.dcm").write_bytes(names[0].read_bytes()[:140])
    for name in names:
        np.testing.assert_array_equal(opened(name, workers=2), RGB[0, 0])
    (tmp_path / "damaged.dcm").unlink()
    np.testing.assert_array_equal(opened(tmp_path), wsidicom_level(tmp_path))
    names[1].unlink()
    for name in (tmp_path, names[0]):
        with pytest.raises(SourceError, match=r"is a part of an image in 3 files, of which number .* are there"):
            open_source(name)


@pytest.mark.parametrize(
    "options",
    [
        {"offset_table": "eot"},
        {"offset_table": "empty", "concatenation": ConcatenationByFrames(7)},
        {"concatenation": ConcatenationByBytes(20_000)},
        {"instance_split": InstanceSplit.OPTICAL_PATH | InstanceSplit.FOCAL_PLANE},
    ],
    ids=["extended", "by frames", "by bytes", "split"],
)
def test_what_wsidicom_writes_is_read(tmp_path, options):
    pixels = np.stack([np.stack([GREY[0, 0], GREY[0, 0] // 2]), np.stack([GREY[0, 0] // 3, GREY[0, 0] // 4])])
    level = Level(pixels=pixels, paths=("red", "blue"), syntax=uid.JPEG2000Lossless)
    path = write(tmp_path / "a.dcm", level, Slide())
    folder = tmp_path / "written"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with WsiDicom.open(path) as slide:
            assert len(slide.save(folder, workers=1, **options)) > ("concatenation" in options)
    for z in range(2):
        with closing(open_source(folder, z=z, workers=2)) as source:
            names = source.metadata.told[0].removeprefix("channels 0 to 1 are the optical paths ").split(", ")
            order = [names.index(name) for name in ("red", "blue")]
            np.testing.assert_array_equal(np.moveaxis(read(source)[..., order], 2, 0), pixels[:, z])


def test_settings_that_a_process_has_made_for_wsidicom_do_not_matter(tmp_path):
    path = write(tmp_path / "a.dcm", Level(pixels=RGB, syntax=uid.JPEG2000Lossless), Slide())
    set_default_settings(Settings(preferred_decoder="pylibjpeg_rle", strict_uid_check=True))
    try:
        np.testing.assert_array_equal(opened(path), RGB[0, 0])
    finally:
        set_default_settings(Settings())


def test_each_tile_is_decoded_once_within_the_bytes_asked_for(tmp_path):
    path = write(tmp_path / "a.dcm", Level(pixels=RGB, syntax=uid.JPEGLSLossless), Slide())
    plan = ReadPlan(
        rows=[Span(max(0, y - 20), min(HEIGHT, y + 70)) for y in range(0, HEIGHT, 50)],
        columns=[Span(max(0, x - 20), min(WIDTH, x + 70)) for x in range(0, WIDTH, 50)],
    )
    with closing(open_source(path, workers=2)) as source:
        granted = source.cache_bytes(plan)
        source.prepare(plan, cache_bytes=granted)
        for rows, columns in itertools.product(plan.rows, plan.columns):
            box = Box(rows, columns)
            np.testing.assert_array_equal(read(source, box), RGB[0, 0][box.slices()])
        assert source.count().chunks_decoded == source.count().chunks_stored == 25
        assert source._reader._cache.peak_bytes <= granted
        assert source._reader._cache.held_bytes == 0


def test_what_is_no_slide_says_what_it_is(tmp_path, slide):
    ct = {"SOPClassUID": uid.CTImageStorage, "Modality": "CT"}
    path = write(tmp_path / "ct.dcm", Level(pixels=DEEP), Slide(), **ct)
    with pytest.raises(SourceError, match=r"ct\.dcm: is a DICOM file of CT Image \(modality CT\), not of a slide"):
        open_source(path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SourceError, match=r"holds 1 DICOM files of CT Image \(modality CT\), but no level of a slide"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match=r"label\.dcm: is LABEL of a slide, not a level of it"):
        open_source(slide / "label.dcm")
    (tmp_path / "photo.dcm").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(SourceError, match=r"photo\.dcm: is no DICOM file, as its name says"):
        open_source(tmp_path / "photo.dcm")
    (tmp_path / "empty.dcm").write_bytes(b"")
    with pytest.raises(SourceError, match=r"empty\.dcm: is empty"):
        open_source(tmp_path / "empty.dcm")


def test_what_lies_beside_the_levels_of_a_slide_does_not_matter(tmp_path, slide):
    folder = shutil.copytree(slide, tmp_path / "slide")
    write(folder / "ct.dcm", Level(pixels=DEEP), Slide(), SOPClassUID=uid.CTImageStorage)
    write(folder / "label2.dcm", Level(pixels=RGB, kind="LABEL"), Slide(), PhotometricInterpretation="PALETTE COLOR")
    (folder / "notes.txt").write_text("")
    np.testing.assert_array_equal(opened(folder), RGB[0, 0])


def test_two_slides_in_a_folder_are_named_and_one_file_chooses(tmp_path):
    first = Slide()
    write(tmp_path / "a.dcm", Level(pixels=RGB), first)
    for other in (Slide(study=first.study), Slide(study=first.study, series=first.series)):
        write(tmp_path / "b.dcm", Level(pixels=RGB // 2), other)
        with pytest.raises(SourceError, match=r"more than one slide: a\.dcm \(series .*\) and b\.dcm .*name one file"):
            open_source(tmp_path)
        np.testing.assert_array_equal(opened(tmp_path / "b.dcm"), RGB[0, 0] // 2)


def test_copies_and_two_images_of_the_same_are_refused(tmp_path):
    common = Slide()
    path = write(tmp_path / "a.dcm", Level(pixels=RGB), common)
    shutil.copy(path, tmp_path / "b.dcm")
    with pytest.raises(SourceError, match=r"a\.dcm and b\.dcm hold the same instance"):
        open_source(tmp_path)
    write(tmp_path / "b.dcm", Level(pixels=RGB // 2), common)
    with pytest.raises(
        SourceError, match=r"and .*a\.dcm both hold 150 x 203 pixels of optical path 0 at focal plane 0"
    ):
        open_source(tmp_path)


REFUSED = {
    "12 bits as stored": (Level(pixels=DEEP >> 4, bits_stored=12), {}, "12 bits a sample with Explicit VR Little"),
    "RLE of 16 bits": (Level(pixels=DEEP, syntax=uid.RLELossless), {}, "16 bits a sample with RLE Lossless"),
    "signed": (Level(pixels=DEEP), {"PixelRepresentation": 1}, "with a sign"),
    "high bits": (Level(pixels=DEEP), {"HighBit": 14}, "HighBit 14 of 16"),
    "by colour": (Level(pixels=RGB), {"PlanarConfiguration": 1}, "PlanarConfiguration"),
    "inverted": (Level(pixels=GREY), {"PhotometricInterpretation": "MONOCHROME1"}, "has colours MONOCHROME1"),
    "luma as stored": (Level(pixels=RGB, photometric="YBR_FULL"), {}, "has colours YBR_FULL with Explicit VR"),
    "luma in JPEG 2000": (
        Level(pixels=RGB, syntax=uid.JPEG2000Lossless),
        {"PhotometricInterpretation": "YBR_FULL_422"},
        "colours YBR_FULL_422 with JPEG 2000 .* but MONOCHROME2, RGB, YBR_ICT, YBR_RCT are read",
    ),
    "deflated": (Level(pixels=RGB, syntax=uid.ExplicitVRLittleEndian), {}, "transfer syntax Deflated"),
    "one sample": (Level(pixels=RGB), {"SamplesPerPixel": 1}, "1 samples a pixel"),
    "16 bits a colour": (Level(pixels=RGB), {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "16 bits in 16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_be_read_exactly_is_refused_with_its_reason(tmp_path, name):
    level, changes, message = REFUSED[name]
    path = write(tmp_path / "a.dcm", level, Slide(), **changes)
    if name == "deflated":
        deflated = dcmread(path)
        deflated.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        save(path, deflated)
    with pytest.raises(SourceError, match=rf"a\.dcm: .*{message}"):
        open_source(path)


def test_frames_that_contradict_the_file_about_colours_are_refused(tmp_path):
    level = Level(pixels=RGB, syntax=uid.JPEG2000, photometric="YBR_ICT")
    frames = [(place, encode(tile, level.syntax, "RGB", 8)) for place, tile in level.tiles()]
    path = save(tmp_path / "a.dcm", dataset(level, Slide(), frames))
    with pytest.raises(SourceError, match="says YBR_ICT, but the codestream has no colour transform"):
        opened(path)


def test_tiles_off_the_grid_or_on_others_are_refused(tmp_path):
    level = Level(pixels=RGB, sparse=True)
    frames = [(place, tile.tobytes()) for place, tile in level.tiles()]
    for column, message in ((50, "lie anywhere rather than on a grid"), (1, "so that some lie on others")):
        data = dataset(level, Slide(), frames)
        position = data.PerFrameFunctionalGroupsSequence[1].PlanePositionSlideSequence[0]
        position.ColumnPositionInTotalImagePixelMatrix = column
        with pytest.raises(SourceError, match=message):
            open_source(save(tmp_path / "a.dcm", data))


def test_numbers_of_frames_that_do_not_fit_are_refused(tmp_path):
    path = write(tmp_path / "a.dcm", Level(pixels=RGB), Slide(), TotalPixelMatrixRows=500)
    with pytest.raises(SourceError, match=r"a\.dcm: .*(25 frames for 16 x 5 tiles|number of frames 25)"):
        open_source(path)
    path = write(tmp_path / "b.dcm", Level(pixels=RGB, sparse=True), Slide(), NumberOfFrames=2**31 - 1)
    with pytest.raises(SourceError, match=r"b\.dcm: claims 2147483647 frames, which it has no room for"):
        open_source(path)
    size = {"TotalPixelMatrixRows": 2**32 - 1, "TotalPixelMatrixColumns": 2**32 - 1}
    path = write(tmp_path / "c.dcm", Level(pixels=RGB, sparse=True), Slide(), **size)
    with pytest.raises(SourceError, match=r"c\.dcm: has room for 134217728 x 89478486 tiles"):
        open_source(path)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit], ids=lambda s: s.keyword)
def test_a_truncated_file_is_reported_by_tile_and_the_rest_is_read(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", Level(pixels=RGB, syntax=syntax, tables="extended"), Slide())
    whole = opened(path)
    path.write_bytes(path.read_bytes()[: -2500 if syntax.is_encapsulated else -9000])
    with closing(open_source(path)) as source:
        for _ in range(2):
            with pytest.raises(
                SourceError, match=r"a\.dcm: level 0, tile row 4, column \d of optical path 0 \(frame 2\d\)"
            ):
                read(source)
            rest = Box(Span(0, 128), Span(0, WIDTH))
            np.testing.assert_array_equal(read(source, rest), whole[rest.slices()])


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGLSLossless, uid.JPEG2000, uid.RLELossless])
def test_a_damaged_frame_is_reported_and_never_made_up(tmp_path, syntax):
    level = Level(pixels=RGB, syntax=syntax)
    frames = [(place, encode(tile, syntax, "RGB", 8)) for place, tile in level.tiles()]
    good = frames[7][1]
    small = encode(np.ascontiguousarray(RGB[0, 0, :16, :24]), syntax, "RGB", 8)
    for bad in (good[: len(good) // 2] + bytes(len(good) - len(good) // 2), small, bytes(len(good)), b"\0\0"):
        path = save(tmp_path / "a.dcm", dataset(level, Slide(), [*frames[:7], (frames[7][0], bad), *frames[8:]]))
        with pytest.raises(
            SourceError, match=r"a\.dcm: level 0, tile row 1, column 2 .*\(frame 7\) cannot be read: .*;"
        ):
            opened(path)


def test_a_jpeg_ls_frame_without_an_end_is_not_given_to_its_decoder(tmp_path, monkeypatch):
    """CharLS takes a minute to find some of these damaged."""
    level = Level(pixels=RGB, syntax=uid.JPEGLSLossless)
    frames = [(place, encode(tile, level.syntax, "RGB", 8)[:200]) for place, tile in level.tiles()]
    path = save(tmp_path / "a.dcm", dataset(level, Slide(), frames))
    monkeypatch.setattr("wsidicom.codec.decoder.ImageCodecsDecoder.decode", None)
    with pytest.raises(SourceError, match="the JPEG-LS stream has no end"):
        opened(path)


@pytest.mark.parametrize(("table", "message"), [(True, r"frame \d+\).*not one item"), (False, "more fragments")])
def test_frames_in_fragments_are_refused_whatever_the_table_says(tmp_path, table, message):
    level = Level(pixels=RGB, syntax=uid.JPEGLSLossless)
    frames = [(place, encode(tile, level.syntax, "RGB", 8)) for place, tile in level.tiles()]
    data = dataset(level, Slide(), frames)
    data.PixelData = encapsulate([frame for _, frame in frames], fragments_per_frame=2, has_bot=table)
    with pytest.raises(SourceError, match=message):
        opened(save(tmp_path / "a.dcm", data))


def test_choices_that_a_slide_does_not_have_are_refused(slide):
    for options in ({"level": 2}, {"series": 1}, {"z": 1}, {"t": 1}, {"axes": "CYX"}, {"workers": 0}, {"page": 1}):
        with pytest.raises(OptionError):
            open_source(slide, **options)
    with pytest.raises(ChannelError, match="channel 3 was requested, but the image has 3"):
        open_source(slide, channels=[3])


def test_closed_slides_read_nothing_more_and_hold_no_files(slide):
    before = open_files()
    source = open_source(slide)
    assert open_files() == before + 1
    source.close()
    source.close()
    assert open_files() == before
    with pytest.raises(SourceError, match="read after close"):
        read(source)


def test_without_wsidicom_the_error_says_what_to_install(slide, monkeypatch):
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    for path in (slide, slide / "large.dcm"):
        with pytest.raises(SourceError, match=r"is DICOM, read with wsidicom.*pip install 'exactile\[dicom\]'"):
            open_source(path)


def test_a_slide_is_known_again_until_one_of_its_files_changes(tmp_path, slide):
    folder = shutil.copytree(slide, tmp_path / "slide")

    def identity(**options) -> str:
        with closing(open_source(folder, **options)) as source:
            return json.dumps(source.identity())

    found = [identity(), identity(level=1), identity(channels=[0])]
    assert found[0] == identity()
    os.utime(folder / "small.dcm", ns=(1, 1))
    found.append(identity())
    (folder / "small.dcm").rename(folder / "other.dcm")
    found.append(identity())
    (folder / "other.dcm").unlink()
    found.append(identity())
    assert len(set(found)) == 6


def test_a_file_that_is_tiff_and_dicom_is_taken_by_its_name(tmp_path):
    start = b"II*\0".ljust(128, b"\0") + b"DICM"
    for name, dicom in (("a.tif", False), ("a.dcm", True), ("a", False)):
        (tmp_path / name).write_bytes(start)
        assert is_dicom_image(tmp_path / name) == dicom
    (tmp_path / "b").write_bytes(start[4:].rjust(132, b"\0"))
    assert is_dicom_image(tmp_path / "b")
    assert not is_dicom_image(tmp_path / "gone.dcm")


def test_labels_from_a_slide_are_those_from_the_same_pixels_in_memory(slide):
    import onnx

    from exactile_converters.deploy import deploy
    from exactile_converters.prepare.from_onnx import prepare_network
    from tests.support.nets import onnx_bytes

    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet_d2")
    deployed = deploy(network, image_dtype="uint8", output="labels")
    labels = []
    for source in (open_source(slide, workers=2), ArraySource(np.ascontiguousarray(RGB[0, 0]))):
        sink = ArraySink()
        Session(deployed, memory_bytes=8 << 30).segment(source, sink, plan="tile", tile=(64, 64))
        labels.append(sink.result)
        source.close()
    np.testing.assert_array_equal(*labels)
