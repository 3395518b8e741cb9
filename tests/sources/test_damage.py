"""A damaged TIFF file is a SourceError that names the file and the chunk; never other pixels, never a print."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from exactile.errors import ExactileError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.tiff.source import TiffSource
from tests.support.tiff_files import BYTES, LONG, SHORT, Tag, image_tags, strip_tags, tile_tags, tiles_of, write_tiff

HEIGHT, WIDTH = 70, 90
IMAGE = (np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2) % 256).astype(np.uint8)
TILES = tiles_of(IMAGE, 32, 32)
"""3 x 3 tiles; number 4 is row 1, column 1: pixels y 32:64, x 32:64."""

ENCODERS: dict[str, tuple[int, Callable[[np.ndarray], bytes]]] = {
    "deflate": (8, lambda tile: imagecodecs.zlib_encode(tile.tobytes())),
    "lzw": (5, lambda tile: imagecodecs.lzw_encode(tile.tobytes())),
    "zstd": (50000, lambda tile: imagecodecs.zstd_encode(tile.tobytes())),
    "jpeg": (7, lambda tile: imagecodecs.jpeg_encode(tile, level=90)),
}
MIDDLE = r"image\.tif: chunk row 1, column 1 \(pixels y 32:64, x 32:64\) cannot be read"


def write(path: Path, codec: str, change: Callable[[bytes], bytes], more: dict[int, Tag] | None = None) -> Path:
    """The image in tiles, the middle one changed after encoding."""
    compression, encode = ENCODERS[codec]
    chunks = [encode(tile) for tile in TILES]
    chunks[4] = change(chunks[4])
    return write_tiff(
        path, {**image_tags(HEIGHT, WIDTH, compression=compression), **tile_tags(32, 32), **(more or {})}, chunks
    )


def read(source: TiffSource, box: Box | None = None) -> np.ndarray:
    box = box or Box(Span(0, source.height), Span(0, source.width))
    out = np.empty((*box.shape, source.channels), source.dtype)
    source.read(box, out)
    return out


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-3],
    "one byte": lambda data: data[:1],
    "zeros": lambda data: bytes(len(data)),
    "another start": lambda data: b"\xa5" + data[1:],
}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("codec", "change"),
    [
        pytest.param(codec, change, id=f"{codec}, {kind}")
        for codec in ENCODERS
        for kind, change in DAMAGES.items()
        if (codec, kind) != ("lzw", "another start")  # LZW has no check of its first code
    ],
)
def test_a_damaged_chunk_is_named_and_its_neighbours_are_still_read(tmp_path, workers, codec, change):
    intact = tifffile.imread(write(tmp_path / "intact.tif", codec, lambda data: data))
    path = write(tmp_path / "image.tif", codec, change)
    with closing(TiffSource(path, workers=workers)) as source:
        with pytest.raises(SourceError, match=MIDDLE):
            read(source)
        left = read(source, Box(Span(0, HEIGHT), Span(0, 32)))
        np.testing.assert_array_equal(left[..., 0], intact[:, :32])


@pytest.mark.parametrize("codec", ["deflate", "lzw", "zstd", "jpeg"])
def test_a_chunk_that_decodes_to_another_size_is_an_error(tmp_path, codec):
    _, encode = ENCODERS[codec]
    for shape in ((31, 32), (16, 16), (48, 8)):
        path = write(tmp_path / "image.tif", codec, lambda _, shape=shape: encode(np.ones(shape, np.uint8)))
        with closing(TiffSource(path)) as source, pytest.raises(SourceError, match=MIDDLE):
            read(source)


def test_a_chunk_that_decodes_to_other_samples_is_an_error(tmp_path):
    """tifffile would cast the 8 bits of the chunk to the 16 of the image."""
    chunks = [imagecodecs.png_encode(tile.astype(np.uint16) * 251) for tile in TILES]
    chunks[4] = imagecodecs.png_encode(TILES[4])
    tags = {**image_tags(HEIGHT, WIDTH, bits=16, compression=34933), **tile_tags(32, 32)}
    path = write_tiff(tmp_path / "image.tif", tags, chunks)
    with closing(TiffSource(path)) as source:
        np.testing.assert_array_equal(read(source, Box(Span(0, 32), Span(0, 90)))[..., 0], IMAGE[:32] * np.uint16(251))
        with pytest.raises(SourceError, match=MIDDLE + ".* uint8 instead of 32 x 32 x 1 uint16"):
            read(source)


def test_a_jpeg_chunk_of_colours_in_a_grey_image_is_an_error(tmp_path):
    stream = imagecodecs.jpeg_encode(np.ones((32, 32, 3), np.uint8))
    path = write(tmp_path / "image.tif", "jpeg", lambda _: stream)
    with closing(TiffSource(path)) as source, pytest.raises(SourceError, match=MIDDLE):
        read(source)


def test_a_jpeg_chunk_that_claims_a_huge_size_is_refused_before_it_is_decoded(tmp_path):
    stream = bytearray(ENCODERS["jpeg"][1](TILES[4]))
    frame = stream.find(b"\xff\xc0")
    stream[frame + 5 : frame + 9] = b"\xff\x00\xff\x00"
    path = write(tmp_path / "image.tif", "jpeg", lambda _: bytes(stream))
    with closing(TiffSource(path, workers=1)) as source:
        message = MIDDLE + ".*65280 x 65280 x 1 samples, but the chunk has room for 1024"
        with pytest.raises(SourceError, match=message):
            read(source, Box(Span(33, 34), Span(33, 34)))


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("layout", ["tiles", "strips"])
def test_a_truncated_file_is_refused_when_it_is_opened(tmp_path, compression, layout):
    """Its directory comes first, so only the pixels are cut off."""
    path = tmp_path / "image.tif"
    options = {"tile": (32, 32)} if layout == "tiles" else {"rowsperstrip": 32}
    tifffile.imwrite(path, np.random.default_rng(1).integers(0, 255, IMAGE.shape, dtype=np.uint8),
                     compression=compression, **options)  # fmt: skip
    size = path.stat().st_size
    os.truncate(path, size - 5)
    with pytest.raises(SourceError, match=rf"image\.tif: is truncated: chunk row \d.*the file at {size - 5};.*missing"):
        TiffSource(path)


@pytest.mark.parametrize("compression", [1, 8])
def test_a_file_truncated_while_it_is_read_is_an_error(tmp_path, compression):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.random.default_rng(1).integers(0, 255, IMAGE.shape, dtype=np.uint8),
                     compression=compression, tile=(32, 32))  # fmt: skip
    with closing(TiffSource(path)) as source:
        os.truncate(path, path.stat().st_size - 1000)
        with pytest.raises(SourceError, match=r"image\.tif: chunk row 2, column 2 \(pixels y 64:70, x 64:90\)"):
            read(source, Box(Span(64, 70), Span(64, 90)))


def test_the_plane_of_a_damaged_chunk_is_named_as_the_file_numbers_it(tmp_path):
    chunks = [ENCODERS["deflate"][1](tile) for tile in TILES] * 3
    chunks[9 * 2 + 4] = b"damaged"
    tags = {**image_tags(HEIGHT, WIDTH, samples=3, compression=8), **tile_tags(32, 32), 284: (SHORT, [2])}
    path = write_tiff(tmp_path / "image.tif", tags, chunks)
    with closing(TiffSource(path, channels=[2])) as source, pytest.raises(SourceError, match="column 1 of plane 2"):
        read(source)


@pytest.mark.parametrize("rest", [b"", b"\0", b"\x08\0\0\0", b"\xff\xff\xff\x7f", bytes(99)])
def test_a_file_that_ends_in_its_header_is_refused(tmp_path, rest):
    path = tmp_path / "image.tif"
    path.write_bytes(b"II*\0" + rest)
    with pytest.raises(SourceError, match=r"image\.tif: "):
        TiffSource(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"nothing\.tif: cannot be opened: No such file"):
        TiffSource(tmp_path / "nothing.tif")
    with pytest.raises(SourceError, match="is a directory"):
        TiffSource(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="not a regular file"):
        TiffSource(tmp_path / "pipe")


def test_a_read_after_close_is_an_error(tmp_path):
    for workers in (1, 2):
        source = TiffSource(write(tmp_path / "image.tif", "deflate", lambda data: data), workers=workers)
        source.close()
        source.close()
        with pytest.raises(SourceError, match="after close"):
            read(source)


HOSTILE: dict[str, dict[int, Tag]] = {
    "no width": {256: (LONG, [0])},
    "no height": {257: (LONG, [0])},
    "tiles of no width": {322: (LONG, [0])},
    "tiles of no height": {323: (LONG, [0])},
    "huge tiles": {322: (LONG, [1 << 17]), 323: (LONG, [1 << 17])},
    "largest tiles": {322: (LONG, [0xFFFFFFF0]), 323: (LONG, [0xFFFFFFF0])},
    "largest image": {256: (LONG, [0xFFFFFFFF]), 257: (LONG, [0xFFFFFFFF])},
    "too few offsets": {324: (LONG, [8])},
    "too few sizes": {325: (LONG, [8])},
    "offsets beyond the end": {324: (LONG, [0x7FFFFFFF] * 9)},
    "sizes beyond the end": {325: (LONG, [0x7FFFFFFF] * 9)},
    "no bits": {258: (SHORT, [0])},
    "odd bits": {258: (SHORT, [77])},
    "many samples": {277: (SHORT, [60000])},
    "unknown sample format": {339: (SHORT, [99])},
    "unknown predictor": {317: (SHORT, [99])},
    "a predictor of text": {317: (BYTES, b"two")},
    "an unknown compression": {259: (SHORT, [77])},
}


@pytest.mark.parametrize(
    ("codec", "kind"),
    # JPEG has no predictor, whatever the header says.
    [(c, k) for c in ("deflate", "jpeg") for k in HOSTILE if not (c == "jpeg" and "predictor" in k)],
)
def test_an_impossible_header_is_refused_before_memory_is_taken(tmp_path, codec, kind):
    path = write(tmp_path / "image.tif", codec, lambda data: data, HOSTILE[kind])
    with pytest.raises(SourceError, match=r"image\.tif"), closing(TiffSource(path)) as source:
        read(source, Box(Span(0, 2), Span(0, 2)))


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {0}>{1}</Pixels></Image></OME>'


@pytest.mark.parametrize(
    ("sizes", "data"),
    [
        ('SizeX="90" SizeY="70" SizeC="1" SizeZ="1000000" SizeT="1000000"', "<TiffData/>"),
        ('SizeX="90" SizeY="70" SizeC="1" SizeZ="1" SizeT="1"', '<TiffData IFD="0" PlaneCount="999999999999"/>'),
        ('SizeX="90" SizeY="70" SizeC="' + "9" * 400 + '" SizeZ="1" SizeT="1"', "<TiffData/>"),
    ],
)
def test_ome_xml_that_claims_more_planes_than_any_file_has_is_refused_before_they_are_listed(tmp_path, sizes, data):
    text = OME.format(f'DimensionOrder="XYCZT" Type="uint8" {sizes}', data)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, IMAGE, description=text, metadata=None, tile=(32, 32), compression="zlib")
    with pytest.raises(SourceError, match=r"image\.tif: its OME-XML claims \d+ planes"):
        TiffSource(path)


def test_a_directory_that_is_its_own_sub_directory_is_refused(tmp_path):
    path = write(tmp_path / "image.tif", "deflate", lambda data: data, {330: (LONG, [0])})
    data = bytearray(path.read_bytes())
    entry = data.find((330).to_bytes(2, "little") + LONG.to_bytes(2, "little") + (1).to_bytes(4, "little"))
    data[entry + 8 : entry + 12] = data[4:8]
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match=r"image\.tif: has a damaged structure: .* among its own sub-directories"):
        TiffSource(path)


@pytest.mark.parametrize("size", [32 * 32 - 1, 6 * 32 + 1])
def test_plain_tiles_of_an_odd_size_are_an_error_as_they_are_for_tifffile(tmp_path, size):
    """Most often a compressed tile whose compression was lost from the header."""
    tags = {**image_tags(70, 90), **tile_tags(32, 32)}
    path = write_tiff(
        tmp_path / "image.tif", tags, [*(tile.tobytes() for tile in TILES[:8]), TILES[8].tobytes()[:size]]
    )
    with pytest.raises(tifffile.TiffFileError):
        tifffile.imread(path)
    with closing(TiffSource(path)) as source, pytest.raises(SourceError, match=r"image\.tif: chunk row 2, column 2"):
        read(source)


@pytest.mark.parametrize("tags", [{284: (SHORT, [6])}, {324: (16, [1 << 63] * 9)}])
def test_an_unknown_planar_configuration_and_offsets_beyond_63_bits_are_refused(tmp_path, tags):
    path = write(tmp_path / "image.tif", "deflate", lambda data: data, tags)
    with pytest.raises(SourceError, match=r"image\.tif: has a damaged structure"):
        TiffSource(path)


def test_memory_that_runs_out_is_not_taken_for_damage(tmp_path, monkeypatch):
    path = write(tmp_path / "image.tif", "deflate", lambda data: data)
    with closing(TiffSource(path, workers=1, on_corrupt="fill")) as source:

        def full(*_):
            raise MemoryError

        monkeypatch.setattr("exactile.sources.positional_file.PositionalFile.read", full)
        with pytest.raises(SourceError, match="there is not enough memory for it"):
            read(source)
        assert source.damaged == ()


def test_a_tag_that_cannot_be_read_but_decides_about_pixels_is_an_error(tmp_path):
    """tifffile drops such a tag, here the predictor, logs it and would go on with other pixels."""
    path = write(tmp_path / "image.tif", "deflate", lambda data: data, {317: (SHORT, [2])})
    data = bytearray(path.read_bytes())
    entry = data.find((317).to_bytes(2, "little") + SHORT.to_bytes(2, "little") + (1).to_bytes(4, "little"))
    data[entry + 2] = 99
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match=r"image\.tif: has a damaged structure: .*317"):
        TiffSource(path)


def test_what_tifffile_logs_reaches_no_terminal_but_those_who_asked_for_logs(tmp_path, capfd, caplog):
    tags = {**image_tags(HEIGHT, WIDTH, compression=8), **strip_tags(32)}
    path = write_tiff(tmp_path / "image.tif", tags, [IMAGE.tobytes()])
    root = logging.getLogger()
    handlers = root.handlers[:]
    with pytest.raises(SourceError, match=r"3 chunks are needed, but it lists 1 offsets.*tifffile says"):
        TiffSource(path)
    assert caplog.records, "tifffile logs the number of strips"
    try:
        root.handlers.clear()
        with pytest.raises(SourceError):
            TiffSource(path)
    finally:
        root.handlers[:] = handlers
    assert capfd.readouterr() == ("", "")
    assert len(logging.getLogger("tifffile").handlers) == 1, "only the handler that does nothing stays"


@pytest.mark.parametrize("codec", ENCODERS)
def test_random_damage_raises_errors_of_ours_or_gives_the_pixels_of_tifffile(tmp_path, codec):
    """Three random bytes at the end of the file, where its directory is, are replaced; 150 times."""
    path = write(tmp_path / "image.tif", codec, lambda data: data)
    intact = path.read_bytes()
    directory = int.from_bytes(intact[4:8], "little")
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(150):
        damaged = bytearray(intact)
        for position in rng.integers(directory, len(intact), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            with closing(TiffSource(path, workers=1)) as source:
                corner = Box(Span(0, min(40, source.height)), Span(0, min(40, source.width)))
                pixels = read(source, corner)
        except ExactileError:
            refused += 1
            continue
        if source.height * source.width > 10**7:
            continue
        with tifffile.TiffFile(path) as tiff:
            expected = tiff.series[0].asarray()[corner.slices()]
        np.testing.assert_array_equal(pixels, expected.reshape(pixels.shape))
    assert refused > 20
