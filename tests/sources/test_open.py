"""One function opens whatever is an image, and says what it reads when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import tifffile

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.array import ArraySource
from exactile.sources.npy.source import NpySource
from exactile.sources.open import open_source
from exactile.sources.tiff.source import TiffSource

IMAGE = np.arange(4 * 5 * 3, dtype="u1").reshape(4, 5, 3)


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (lambda path: tifffile.imwrite(path, IMAGE, photometric="rgb"), TiffSource),
        (lambda path: tifffile.imwrite(path, IMAGE, photometric="rgb", byteorder=">"), TiffSource),
        (lambda path: tifffile.imwrite(path, IMAGE, photometric="rgb", bigtiff=True), TiffSource),
        (lambda path: tifffile.imwrite(path, IMAGE, photometric="rgb", bigtiff=True, byteorder=">"), TiffSource),
        (lambda path: np.save(path.open("wb"), IMAGE), NpySource),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_format_is_told_by_content_not_by_name(tmp_path, write, kind):
    path = tmp_path / "image.dat"
    write(path)
    for name in (path, str(path)):
        with closing(open_source(name, channels=[2, 0], workers=1)) as source:
            assert isinstance(source, kind)
            out = np.empty((4, 5, 2), "u1")
            source.read(Box(Span(0, 4), Span(0, 5)), out)
            np.testing.assert_array_equal(out, IMAGE[..., [2, 0]])


def test_an_array_is_opened_as_it_is():
    source = open_source(IMAGE, axes="CYX", channels=[1])
    assert isinstance(source, ArraySource)
    assert (source.height, source.width, source.channels) == (5, 3, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; copy it again"),
        (b"\x89PNG\r\n\x1a\n", "is a damaged PNG picture"),
        (b"\xff\xd8\xff\xe0", "is a damaged JPEG picture"),
        (b"hello", "is of an unknown format; TIFF .* are read"),
        (b"PK\x03\x04", "is a zip archive; unpack it"),
    ],
)
def test_other_files_are_refused_with_what_is_read(tmp_path, content, message):
    (tmp_path / "image.tif").write_bytes(content)
    with pytest.raises(SourceError, match=rf"image\.tif: {message}"):
        open_source(tmp_path / "image.tif")


def test_nothing_a_folder_and_a_pipe_are_refused_with_what_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("nothing", "No such file"), (".", "is a directory"), ("pipe", "not a regular file")):
        with pytest.raises(SourceError, match=rf"{message}.*TIFF .* are read"):
            open_source(tmp_path / name)
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source("null\0byte")


def test_levels_belong_to_tiff_and_channels_to_all(tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    tifffile.imwrite(tmp_path / "image.tif", IMAGE, photometric="rgb")
    for image in (IMAGE, tmp_path / "image.npy"):
        with pytest.raises(OptionError, match="level 1"):
            open_source(image, level=1)
    with pytest.raises(OptionError, match="level 1 was requested, but the file has 1"):
        open_source(tmp_path / "image.tif", level=1)
    for image in (IMAGE, tmp_path / "image.npy", tmp_path / "image.tif"):
        with pytest.raises(ChannelError, match="has 3"):
            open_source(image, channels=[3])


def test_arrays_are_read_without_importing_tifffile():
    program = (
        "import sys, numpy\nfrom exactile.sources.open import open_source\n"
        "open_source(numpy.zeros((4, 4), 'u1'))\n"
        "assert not {'tifffile', 'imagecodecs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
