"""Leica LIF files, written here: liffile's pixels, and those of readlif, which shares no code with it."""

from __future__ import annotations

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import jsonschema
import liffile
import numpy as np
import pytest
from readlif.reader import LifFile as ReadLif

from exactile.errors import ChannelError, ExactileError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.description import image_schema
from exactile.sources.lif.source import LifSource
from exactile.sources.listing import find_images
from exactile.sources.open import open_source
from tests.support.command import within
from tests.support.lif_files import LifPart, write_lif
from tests.support.source_pixels import all_pixels

RNG = np.random.default_rng(3)
STACK = RNG.integers(0, 4096, (2, 3, 4, 53, 61), dtype=np.uint16)
"""T, Z, C, Y, X."""
GREY = RNG.integers(0, 256, (70, 45), dtype=np.uint8)
SPECTRUM = RNG.integers(0, 256, (6, 20, 30), dtype=np.uint8)
FLOATS = RNG.normal(size=(2, 9, 11)).astype("f4")


@pytest.fixture(scope="module")
def lif(tmp_path_factory):
    names = ("Green", "Red", "Blue", "Gray")
    return write_lif(
        tmp_path_factory.mktemp("lif") / "project.lif",
        LifPart(name="stack", samples=STACK, axes="TZCYX", names=names, side=(52e-6, 30e-6), bits=12),
        LifPart(name="grey", samples=GREY, axes="YX"),
        LifPart(name="spectrum", samples=SPECTRUM, axes="λYX"),
        LifPart(name="floats", samples=FLOATS, axes="CYX", names=("Green", "Red")),
        LifPart(name="upright", samples=STACK[0, :, 0, :, 0].copy(), axes="ZY"),
    )


def test_every_plane_has_the_samples_that_were_written_and_that_both_readers_give(lif):
    with liffile.LifFile(lif) as library:
        np.testing.assert_array_equal(library.images[0].asarray(), STACK)
    other = ReadLif(io.BytesIO(lif.read_bytes())).get_image(0)
    for t in range(2):
        for z in range(3):
            with closing(open_source(lif, t=t, z=z)) as source:
                assert isinstance(source, LifSource)
                pixels = all_pixels(source)
            np.testing.assert_array_equal(pixels, STACK[t, z].transpose(1, 2, 0))
            for channel in range(4):
                np.testing.assert_array_equal(np.asarray(other.get_frame(z=z, t=t, c=channel)), pixels[..., channel])


def test_each_image_of_the_file_is_a_series(lif):
    for series, expected in ((1, GREY[..., None]), (2, SPECTRUM.transpose(1, 2, 0)), (3, FLOATS.transpose(1, 2, 0))):
        with closing(open_source(lif, series=series)) as source:
            assert source.dtype == expected.dtype
            np.testing.assert_array_equal(all_pixels(source), expected)
    with pytest.raises(OptionError, match="series 5 was requested, but the file has 5"):
        open_source(lif, series=5)


def test_boxes_and_channels_at_odd_places_from_several_threads(lif):
    whole = STACK[1, 2].transpose(1, 2, 0)
    boxes = [Box(Span(a, min(53, a + 17)), Span(b, min(61, b + 9))) for a in range(0, 50, 7) for b in range(3, 58, 11)]

    def checked(box: Box) -> bool:
        with closing(open_source(lif, t=1, z=2, channels=[3, 0, 3])) as source:
            out = np.empty((*box.shape, 3), "u2")
            source.read(box, out)
        return np.array_equal(out, whole[box.slices()][..., [3, 0, 3]])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(checked, boxes))
    with closing(open_source(lif, t=1, z=2, workers=3)) as source:
        for box in boxes:
            out = np.empty((*box.shape, 4), "u2")
            source.read(box, out)
            np.testing.assert_array_equal(out, whole[box.slices()])


def test_pixel_sizes_are_from_the_first_pixel_to_the_last(lif):
    with closing(open_source(lif, t=0, z=0, mpp=None)) as source:
        assert source.pixel_size_um == pytest.approx((1.0, 0.5))
    scale = ReadLif(io.BytesIO(lif.read_bytes())).get_image(0).scale
    assert (1 / scale[1], 1 / scale[0]) == pytest.approx((1.0, 0.5))
    with closing(open_source(lif, series=1)) as source:
        assert source.pixel_size_um == pytest.approx((100 / 69, 100 / 44))


def test_a_plane_has_to_be_chosen_and_what_is_not_there_is_refused(lif):
    with pytest.raises(SourceError, match=r"choose z \(--z\) from 0 to 2|t \(--t\) from 0 to 1"):
        open_source(lif)
    for options in ({"z": 3, "t": 0}, {"level": 1, "z": 0, "t": 0}, {"axes": "CYX"}, {"page": 0}, {"mpp": 9.0}):
        with pytest.raises(OptionError):
            open_source(lif, **options)
    with pytest.raises(ChannelError, match="channel 4 was requested, but the image has 4"):
        open_source(lif, z=0, t=0, channels=[4])


def test_planes_of_other_axes_are_refused_with_their_names(lif):
    with pytest.raises(SourceError, match=r"series 4 \(upright\): its axes are Z, Y, in frames of"):
        open_source(lif, series=4)


def test_an_image_that_was_not_recorded_to_its_end_is_refused(tmp_path):
    """liffile would give bytes of what follows for its last planes."""
    path = write_lif(
        tmp_path / "cut.lif",
        LifPart(name="cut", samples=SPECTRUM, axes="ZYX", cut=900),
        LifPart(name="whole", samples=GREY, axes="YX"),
    )
    with pytest.raises(SourceError, match=r"series 0 \(cut\): its pixels take 3600 bytes, but 2700 are stored"):
        open_source(path, z=0)
    with closing(open_source(path, series=1)) as source:
        np.testing.assert_array_equal(all_pixels(source)[..., 0], GREY)


def test_damaged_and_truncated_files_are_reported(lif, tmp_path):
    content = lif.read_bytes()
    for name, damaged in (
        ("short.lif", content[:400]),
        ("text.lif", content[:200] + b"\xff" * 300 + content[500:]),
        ("cut.lif", content[: -STACK.nbytes]),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(SourceError, match=name):
            open_source(tmp_path / name, series=3)


def test_damaged_bytes_in_the_header_are_pixels_or_one_clear_error(lif, tmp_path):
    rng, path = np.random.default_rng(4), tmp_path / "damaged.lif"
    content = lif.read_bytes()
    header = content.index("MemBlock_0".encode("utf-16-le"), content.rindex("</LMSData".encode("utf-16-le")))
    refused = 0
    for _ in range(150):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, header + 20, rng.integers(1, 4))] = rng.integers(0, 256)
        path.write_bytes(damaged.tobytes())
        try:
            with closing(open_source(path, series=0, z=1, t=1)) as source:
                all_pixels(source)
        except ExactileError as error:
            assert "damaged.lif" in str(error)  # noqa: PT017
            refused += 1
    assert 0 < refused < 150


def test_info_lists_every_image(lif):
    done = within("info", lif, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, image_schema())
    assert (found["kind"], found["reader"]) == ("LIF (Leica)", "liffile")
    assert [series["name"] for series in found["series"]] == ["stack", "grey", "spectrum", "floats", "upright"]
    stack = found["series"][0]
    assert (stack["axes"], stack["shape"], stack["z"], stack["t"]) == ("TZCYX", [2, 3, 4, 53, 61], 3, 2)
    assert stack["channel_names"] == ["Green", "Red", "Blue", "Gray"]
    assert (found["series"][2]["channels"], found["series"][2]["channel_names"]) == (6, [])
    assert any("upright" in note for note in found["notes"])
    assert found["command"].endswith("--z 0 --t 0")
    assert "not read" in within("info", lif).stdout


def test_lif_files_of_a_folder_are_listed(lif):
    assert find_images([lif.parent]).images == (lif,)


def test_without_liffile_the_error_says_what_to_install(lif, monkeypatch):
    monkeypatch.setitem(sys.modules, "liffile", None)
    with pytest.raises(SourceError, match=r"is a Leica LIF file.*pip install 'exactile\[lif\]'"):
        open_source(lif)
