"""Arrays in memory and in .npy files give numpy's own pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy_format

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.array import ArraySource
from exactile.sources.npy.source import NpySource
from exactile.sources.protocol import ReadPlan, Source

TYPES = ["u1", "<u2", ">u2", "<f4", ">f4"]


def read(source: Source, box: Box | None = None) -> np.ndarray:
    box = box or Box(Span(0, source.height), Span(0, source.width))
    out = np.empty((*box.shape, source.channels), source.dtype)
    source.read(box, out)
    return out


def sample(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = np.random.default_rng(3).integers(0, 2**16, shape)
    return (values / 7).astype(dtype) if "f" in dtype else values.astype(dtype)


def as_yxc(array: np.ndarray, axes: str) -> np.ndarray:
    return {"YX": array[..., None], "YXC": array}.get(axes, np.moveaxis(array, 0, 2) if array.ndim == 3 else array)


def open_as(kind: str, array: np.ndarray, folder: Path, **options) -> Source:
    if kind == "array":
        return ArraySource(array, **options)
    np.save(folder / "image.npy", array)
    return NpySource(folder / "image.npy", **options)


kinds = pytest.mark.parametrize("kind", ["array", "npy"])


@kinds
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("axes", "shape"), [("YX", (13, 17)), ("YXC", (13, 17, 5)), ("CYX", (5, 13, 17))])
@pytest.mark.parametrize("channels", [None, [0], [4, 0], [1, 1], [4, 3, 2]])
def test_pixels_are_those_of_the_array_in_native_byte_order(tmp_path, kind, dtype, axes, shape, channels):
    if axes == "YX" and channels is not None:
        channels = [0] * len(channels)
    array = sample(shape, dtype)
    source = open_as(kind, array, tmp_path, axes=axes, channels=channels)
    expected = as_yxc(array, axes)[..., slice(None) if channels is None else channels]
    assert (source.height, source.width, source.channels) == expected.shape
    assert source.dtype.isnative
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read(source), expected)
    source.close()
    source.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_box_of_a_npy_file_is_the_slice_of_the_array(tmp_path, data):
    array = sample((37, 61, 3), "<u2")
    path = tmp_path / "image.npy"
    if not path.exists():
        np.save(path, array)
    y = sorted(data.draw(st.tuples(st.integers(0, 37), st.integers(0, 37))))
    x = sorted(data.draw(st.tuples(st.integers(0, 61), st.integers(0, 61))))
    box = Box(Span(*y), Span(*x))
    with closing(NpySource(path)) as source:
        np.testing.assert_array_equal(read(source, box), array[box.slices()])


@kinds
def test_a_read_fills_arrays_of_any_strides(tmp_path, kind):
    array = sample((20, 30, 3), "u1")
    source = open_as(kind, array, tmp_path)
    planes = np.zeros((3, 20, 60), "u1")
    source.read(Box(Span(0, 20), Span(0, 30)), planes.transpose(1, 2, 0)[:, ::2])
    np.testing.assert_array_equal(planes[:, :, ::2], array.transpose(2, 0, 1))
    assert not planes[:, :, 1::2].any()
    source.close()


def test_rows_longer_than_a_block_and_blocks_shorter_than_the_box_are_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("exactile.sources.raw_rows.BLOCK_BYTES", 100)
    array = sample((40, 90), "u1")
    source = open_as("npy", array, tmp_path)
    for box in (Box(Span(0, 40), Span(0, 90)), Box(Span(3, 39), Span(80, 90)), Box(Span(1, 40), Span(0, 30))):
        np.testing.assert_array_equal(read(source, box)[..., 0], array[box.slices()])
    source.close()


@kinds
def test_nothing_is_kept_or_decoded(tmp_path, kind):
    source = open_as(kind, sample((20, 30), "u1"), tmp_path)
    plan = ReadPlan(rows=[Span(0, 20)], columns=[Span(0, 30)])
    assert source.cache_bytes(plan) == 0
    source.prepare(plan, cache_bytes=0)
    read(source)
    assert (source.count().chunks_decoded, source.count().chunks_stored) == (0, 0)
    source.close()


@kinds
@pytest.mark.parametrize("dtype", ["i8", "u8", "c8"])
def test_other_sample_types_are_refused_by_name(tmp_path, kind, dtype):
    with pytest.raises(SourceError, match=f"{np.dtype(dtype).name}.*uint8, uint16, float32.*float64.*convert"):
        open_as(kind, np.zeros((4, 4), dtype), tmp_path)


@kinds
def test_shapes_and_axes_that_make_no_image_are_refused(tmp_path, kind):
    with pytest.raises(SourceError, match=r"shape \(2, 3, 4, 5\)"):
        open_as(kind, np.zeros((2, 3, 4, 5), "u1"), tmp_path)
    with pytest.raises(SourceError, match="cannot be read as YX;"):
        open_as(kind, np.zeros((2, 3, 4), "u1"), tmp_path, axes="YX")
    with pytest.raises(SourceError, match="no pixels"):
        open_as(kind, np.zeros((0, 4), "u1"), tmp_path)
    with pytest.raises(OptionError, match=r"'XY'.*YX, YXC, CYX"):
        open_as(kind, np.zeros((4, 4), "u1"), tmp_path, axes="XY")


@kinds
def test_a_channel_that_is_not_there_is_refused_with_the_number_of_channels(tmp_path, kind):
    for channels in ([3], [-1], [0, 7]):
        with pytest.raises(ChannelError, match="has 3, numbered 0 to 2"):
            open_as(kind, np.zeros((4, 4, 3), "u1"), tmp_path, channels=channels)
    with pytest.raises(ChannelError, match="no channel"):
        open_as(kind, np.zeros((4, 4, 3), "u1"), tmp_path, channels=[])


@kinds
def test_a_box_beyond_the_image_and_an_array_that_does_not_fit_are_mistakes_of_the_caller(tmp_path, kind):
    source = open_as(kind, np.zeros((4, 5), "u1"), tmp_path)
    with pytest.raises(ValueError, match="not within the image of 4 x 5"):
        source.read(Box(Span(0, 5), Span(0, 5)), np.empty((5, 5, 1), "u1"))
    with pytest.raises(ValueError, match="not within"):
        source.read(Box(Span(0, 4), Span(-1, 5)), np.empty((4, 6, 1), "u1"))
    with pytest.raises(ValueError, match="shape"):
        source.read(Box(Span(0, 4), Span(0, 5)), np.empty((4, 5), "u1"))
    with pytest.raises(ValueError, match="uint16"):
        source.read(Box(Span(0, 4), Span(0, 5)), np.empty((4, 5, 1), "u2"))
    source.close()


def test_an_array_is_borrowed_not_copied():
    array = np.zeros((4, 5), "u1")
    source = ArraySource(array)
    array[2, 3] = 9
    assert read(source)[2, 3, 0] == 9


def test_a_truncated_npy_file_is_refused_with_both_sizes(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.zeros((100, 100), "u1"))
    os.truncate(path, 10_127)
    with pytest.raises(SourceError, match=r"image\.npy: is truncated.*10128 bytes.*10127"):
        NpySource(path)
    os.truncate(path, 60)
    with pytest.raises(SourceError, match=r"not a readable \.npy file"):
        NpySource(path)


def test_a_npy_file_truncated_while_it_is_read_is_an_error_not_old_pixels(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.ones((100, 100), "u1"))
    source = NpySource(path)
    os.truncate(path, 5000)
    with pytest.raises(SourceError, match=r"image\.npy: cannot read"):
        read(source)
    source.close()
    with pytest.raises(SourceError, match="after close"):
        read(source)


class Bomb:
    def __reduce__(self):
        return (sys.exit, ("unpickled",))


def test_objects_are_refused_and_never_unpickled(tmp_path):
    np.save(tmp_path / "image.npy", np.array([[Bomb()]]), allow_pickle=True)
    with pytest.raises(SourceError, match="never loaded"):
        NpySource(tmp_path / "image.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_header_version_is_read(tmp_path, version):
    array = sample((5, 6), "<u2")
    with (tmp_path / "image.npy").open("wb") as file:
        npy_format.write_array(file, array, version=version)
    source = NpySource(tmp_path / "image.npy")
    np.testing.assert_array_equal(read(source)[..., 0], array)
    source.close()


@pytest.mark.parametrize("header", [b"", b"{'descr': ", b"{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 4)}"])
def test_a_damaged_header_is_refused(tmp_path, header):
    (tmp_path / "image.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(SourceError, match=r"image\.npy"):
        NpySource(tmp_path / "image.npy")


def test_reading_a_large_npy_file_does_not_make_the_process_grow_with_it(tmp_path):
    """400 MB swept by rows leave less than 60 MB of new resident memory; a memory map would leave all."""
    path = tmp_path / "image.npy"
    with path.open("wb") as file:
        npy_format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (20_000, 20_000)})
        file.truncate(file.tell() + 20_000 * 20_000)
    program = f"""
import resource
import numpy as np
from exactile.geometry import Box, Span
from exactile.sources.npy.source import NpySource
source = NpySource({str(path)!r})
out = np.zeros((500, 20_000, 1), 'u1')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for y in range(0, 20_000, 500):
    source.read(Box(Span(y, y + 500), Span(0, 20_000)), out)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60_000
