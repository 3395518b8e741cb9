"""Nikon ND2 files: nd2's pixels of the recording that the package pims_nd2 holds, and of changed copies of it."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import nd2
import numpy as np
import pytest

from exactile.errors import ChannelError, ExactileError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.description import image_schema
from exactile.sources.listing import find_images
from exactile.sources.nd2.frames import read_frames
from exactile.sources.nd2.source import Nd2Source
from exactile.sources.open import open_source
from exactile.sources.positional_file import PositionalFile
from tests.support.command import within
from tests.support.source_pixels import all_pixels

HEADER = struct.Struct("<IIQ")


@pytest.fixture(scope="module")
def recording() -> Path:
    """3 times, 10 planes, 2 channels of 31 x 38 pixels, from a confocal microscope."""
    spec = find_spec("pims_nd2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("cluster.nd2")


@pytest.fixture(scope="module")
def whole(recording) -> np.ndarray:
    """The oracle: (T, Z, C, Y, X)."""
    return nd2.imread(recording)


def places(path: Path) -> dict[int, tuple[int, int]]:
    with closing(PositionalFile(path)) as file:
        frames = read_frames(file)
        return {frame: frames.place(frame) for frame in frames.offsets}


def number_changed(content: bytes, name: str, before: int, after: int) -> bytes:
    """An attribute of the frames, as the file stores it: its name in UTF-16, and 32 bits."""
    sign = f"{name}\0".encode("utf-16-le") + struct.pack("<I", before)
    assert content.count(sign) == 1
    return content.replace(sign, sign[:-4] + struct.pack("<I", after))


def compressed(recording: Path, path: Path) -> Path:
    """The same frames, compressed without loss, as NIS-Elements does: zlib after the time, in the same places."""
    content = bytearray(number_changed(recording.read_bytes(), "eCompression", 2, 0))
    for start, size in places(recording).values():
        packed = zlib.compress(bytes(content[start : start + 31 * 152]))
        assert len(packed) <= size
        content[start : start + len(packed)] = packed
        header = start - 8 - 4072 - HEADER.size
        magic, name_bytes, _ = HEADER.unpack_from(content, header)
        HEADER.pack_into(content, header, magic, name_bytes, 8 + len(packed))
    path.write_bytes(content)
    return path


def test_every_plane_has_nd2s_pixels(recording, whole):
    assert whole.shape == (3, 10, 2, 31, 38)
    for t in range(3):
        for z in range(10):
            with closing(open_source(recording, t=t, z=z)) as source:
                assert isinstance(source, Nd2Source)
                assert source.dtype == np.uint16
                np.testing.assert_array_equal(all_pixels(source), whole[t, z].transpose(1, 2, 0))


def test_boxes_and_channels_at_odd_places_in_bands_of_rows(recording, whole, monkeypatch):
    monkeypatch.setattr("exactile.sources.nd2.source.BAND_BYTES", 7 * 152)
    plane = whole[2, 4].transpose(1, 2, 0)
    with closing(open_source(recording, t=2, z=4, channels=[1, 0, 1], workers=3)) as source:
        assert source.count().chunks_stored == 5
        for box in [Box(Span(a, min(31, a + 9)), Span(b, min(38, b + 5))) for a in range(0, 30, 4) for b in (0, 3, 33)]:
            out = np.empty((*box.shape, 3), "u2")
            source.read(box, out)
            np.testing.assert_array_equal(out, plane[box.slices()][..., [1, 0, 1]])


def test_frames_compressed_without_loss_are_read_as_nd2_reads_them(recording, whole, tmp_path):
    path = compressed(recording, tmp_path / "packed.nd2")
    np.testing.assert_array_equal(nd2.imread(path), whole)
    for t, z in ((0, 0), (2, 9), (1, 3)):
        with closing(open_source(path, t=t, z=z, channels=[1])) as source:
            np.testing.assert_array_equal(all_pixels(source)[..., 0], whole[t, z, 1])
    start, size = places(path)[13]
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\x11" * size
    path.write_bytes(content)
    with (
        closing(open_source(path, t=1, z=3)) as source,
        pytest.raises(SourceError, match=r"packed\.nd2: .* cannot be read: frame 13 cannot be decompressed"),
    ):
        all_pixels(source)


def test_rows_that_are_padded_are_read_without_the_padding(recording, whole, tmp_path):
    path = tmp_path / "padded.nd2"
    path.write_bytes(number_changed(recording.read_bytes(), "uiWidth", 38, 37))
    np.testing.assert_array_equal(nd2.imread(path), whole[..., :37])
    with closing(open_source(path, t=1, z=1)) as source:
        np.testing.assert_array_equal(all_pixels(source), whole[1, 1, ..., :37].transpose(1, 2, 0))


def test_positions_are_series(recording, whole, monkeypatch):
    """The recording has one position; its times are taken for positions here, by what nd2 says of its axes."""
    sizes = {"P": 3, "Z": 10, "C": 2, "Y": 31, "X": 38}
    monkeypatch.setattr(nd2.ND2File, "sizes", sizes)
    for series in range(3):
        with closing(open_source(recording, series=series, z=7)) as source:
            np.testing.assert_array_equal(all_pixels(source), whole[series, 7].transpose(1, 2, 0))
    with pytest.raises(OptionError, match="series 3 was requested, but the file has 3"):
        open_source(recording, series=3, z=0)


def test_frames_that_were_not_recorded_are_errors_where_nd2_gives_zeros(recording, tmp_path):
    path = tmp_path / "missing.nd2"
    content = recording.read_bytes()
    at = content.rindex(b"ImageDataSeq|25!")
    path.write_bytes(content[:at] + b"ImageDataXeq|25!" + content[at + 16 :])
    assert not nd2.imread(path)[2, 5].any()
    with (
        closing(open_source(path, t=2, z=5)) as source,
        pytest.raises(SourceError, match=r"missing\.nd2: .*frame 25 was not recorded; 29 frames are in the file"),
    ):
        all_pixels(source)


def test_a_frame_that_lies_elsewhere_than_the_table_says_is_an_error(recording, tmp_path):
    path = tmp_path / "moved.nd2"
    content = bytearray(recording.read_bytes())
    at = content.rindex(b"ImageDataSeq|3!") + len(b"ImageDataSeq|3!")
    other = content.rindex(b"ImageDataSeq|4!") + len(b"ImageDataSeq|4!")
    content[at : at + 8] = content[other : other + 8]
    path.write_bytes(content)
    with (
        closing(open_source(path, t=0, z=3)) as source,
        pytest.raises(SourceError, match="frame 3 is not where the table at the end of the file says"),
    ):
        all_pixels(source)


def test_truncated_and_damaged_files_are_reported(recording, tmp_path):
    content = recording.read_bytes()
    for name, damaged in (
        ("cut.nd2", content[:-300]),
        ("half.nd2", content[: len(content) // 2]),
        ("start.nd2", content[:200]),
        ("odd.nd2", content[:4] + b"\xff" * 4000 + content[4004:]),
        ("place.nd2", content[:-8] + struct.pack("<Q", 1 << 60)),
        ("older.nd2", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 400),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(SourceError, match=name):
            open_source(tmp_path / name, t=0, z=0)


def test_damaged_bytes_anywhere_are_pixels_or_one_clear_error(recording, tmp_path):
    """Of metadata and tables: there are no checksums of pixels."""
    rng, path = np.random.default_rng(4), tmp_path / "damaged.nd2"
    content = recording.read_bytes()
    frames = [start for start, _ in places(recording).values()]
    elsewhere = np.r_[: min(frames) - 4096, max(frames) + 5000 : len(content)]
    refused = 0
    for _ in range(150):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.choice(elsewhere, rng.integers(1, 30))] = rng.integers(0, 256)
        path.write_bytes(damaged.tobytes())
        try:
            with closing(open_source(path, t=1, z=2)) as source:
                all_pixels(source)
        except ExactileError as error:
            assert "damaged.nd2" in str(error)  # noqa: PT017
            refused += 1
    assert 0 < refused < 150


def test_what_was_not_seen_in_a_real_file_is_refused(recording, tmp_path):
    content = recording.read_bytes()
    for name, changed, message in (
        ("colours.nd2", number_changed(content, "uiComp", 2, 6), "colour samples"),
        ("lossy.nd2", number_changed(content, "eCompression", 2, 1), "compressed with loss"),
        ("tiles.nd2", number_changed(content, "uiTileWidth", 38, 16), "frames in tiles"),
    ):
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / name, t=0, z=0)


def test_pixel_size_and_choices(recording):
    with closing(open_source(recording, t=0, z=0, mpp=0.17)) as source:
        assert source.pixel_size_um == pytest.approx((0.167809, 0.167809), rel=1e-5)
    with pytest.raises(SourceError, match=r"t \(--t\) from 0 to 2 and z \(--z\) from 0 to 9"):
        open_source(recording)
    for options in ({"t": 3, "z": 0}, {"t": 0, "z": 10}, {"level": 1, "t": 0, "z": 0}, {"axes": "YXC"}, {"mpp": 1.0}):
        with pytest.raises(OptionError):
            open_source(recording, **options)
    with pytest.raises(ChannelError, match="channel 2 was requested, but the image has 2"):
        open_source(recording, t=0, z=0, channels=[2])


def test_it_is_known_again_by_file_and_plane(recording):
    def identity(**choice) -> str:
        with closing(open_source(recording, t=0, **choice)) as source:
            return json.dumps(source.identity())

    assert identity(z=1) == identity(z=1)
    assert len({identity(z=1), identity(z=2), identity(z=1, channels=[1])}) == 3


def test_info_tells_names_planes_and_pixel_size(recording):
    done = within("info", recording, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, image_schema())
    assert (found["kind"], found["reader"], found["reader_version"]) == ("ND2 (Nikon)", "nd2", nd2.__version__)
    (series,) = found["series"]
    assert (series["axes"], series["shape"], series["z"], series["t"]) == ("TZYXC", [3, 10, 31, 38, 2], 10, 3)
    assert series["channel_names"] == ["5-FAM/pH 9.0", "FM 4-64/2% CHAPS"]
    assert found["command"].endswith("--z 0 --t 0")


def test_nd2_files_of_a_folder_are_listed(recording):
    assert recording in find_images([recording.parent]).images


def test_without_nd2_the_error_says_what_to_install(recording, monkeypatch):
    monkeypatch.setitem(sys.modules, "nd2", None)
    with pytest.raises(SourceError, match=r"is a Nikon ND2 file.*pip install 'exactile\[nd2\]'"):
        open_source(recording)
