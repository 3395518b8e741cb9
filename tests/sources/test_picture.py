"""Pictures (PNG, JPEG, BMP, WebP, JPEG 2000, JPEG XL) give the samples of an independent decoder."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial

import imagecodecs
import numpy as np
import onnx
import pytest
from PIL import Image

from exactile.errors import BudgetError, ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.planning import Wish
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.open import open_source
from exactile.sources.picture import formats as picture_formats
from exactile.sources.picture.source import PictureSource
from exactile.sources.protocol import ReadPlan
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import onnx_bytes
from tests.support.pictures import HEIGHT, WIDTH, encoded, interlaced, jpegxl, samples

GREY, RGB, RGBA = samples(1), samples(3), samples(4)
PALETTE = Image.fromarray(RGB).quantize(16)
BITS = Image.fromarray(GREY > 128)


def pillow(data: bytes, mode: str | None = None) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert(mode) if mode else image)


def read(path, **options) -> np.ndarray:
    with closing(open_source(path, **options)) as source:
        assert isinstance(source, PictureSource)
        out = np.empty((source.height, source.width, source.channels), source.dtype)
        source.read(Box(Span(0, source.height), Span(0, source.width)), out)
        return out


def placed(tmp_path, data: bytes):
    path = tmp_path / "picture.dat"  # told by content
    path.write_bytes(data)
    return path


BY_PILLOW = {
    "png grey": (encoded(GREY, "PNG"), None),
    "png rgb": (encoded(RGB, "PNG"), None),
    "png rgba": (encoded(RGBA, "PNG"), None),
    "png grey alpha": (encoded(Image.fromarray(RGBA).convert("LA"), "PNG"), None),
    "png palette": (encoded(PALETTE, "PNG"), "RGB"),
    "png palette, one transparent": (encoded(PALETTE, "PNG", transparency=3), "RGBA"),
    "png 1 bit": (encoded(BITS, "PNG"), "L"),
    "png 16 bits": (encoded(samples(1, "uint16"), "PNG"), None),
    "png interlaced": (interlaced(RGB), None),
    "png interlaced 16 bits": (interlaced(samples(1, "uint16")), None),
    "jpeg grey": (encoded(GREY, "JPEG"), None),
    "jpeg rgb": (encoded(RGB, "JPEG"), None),
    "jpeg progressive": (encoded(RGB, "JPEG", progressive=True), None),
    "bmp grey": (encoded(GREY, "BMP"), None),
    "bmp rgb": (encoded(RGB, "BMP"), None),
    "bmp palette": (encoded(PALETTE, "BMP"), "RGB"),
    "bmp 1 bit": (encoded(BITS, "BMP"), "L"),
    "webp lossy": (encoded(RGB, "WEBP"), None),
    "webp lossless": (encoded(RGB, "WEBP", lossless=True), None),
    "webp lossy rgba": (encoded(RGBA, "WEBP"), None),
    "webp lossless rgba": (encoded(RGBA, "WEBP", lossless=True), None),
    "jp2 grey": (encoded(GREY, "JPEG2000"), None),
    "jp2 rgb": (encoded(RGB, "JPEG2000"), None),
    "jp2 rgba": (encoded(RGBA, "JPEG2000"), None),
    "jp2 lossy": (encoded(RGB, "JPEG2000", irreversible=True), None),
    "j2k rgb": (encoded(RGB, "JPEG2000", no_jp2=True), None),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_PILLOW)
def test_samples_are_those_of_pillow(tmp_path, name):
    data, mode = BY_PILLOW[name]
    expected = np.atleast_3d(pillow(data, mode))
    found = read(placed(tmp_path, data))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


LOSSLESS = {
    "png 16 bits rgb": (samples(3, "uint16"), imagecodecs.png_encode),
    "jp2 12 bits": (samples(1, "uint16") // 16, partial(imagecodecs.jpeg2k_encode, bitspersample=12, level=0)),
    "jp2 16 bits": (samples(3, "uint16"), partial(imagecodecs.jpeg2k_encode, level=0)),
    "jxl grey": (GREY, lambda pixels: jpegxl(pixels, lossless=True)),
    "jxl rgb": (RGB, lambda pixels: jpegxl(pixels, lossless=True)),
    "jxl rgba": (RGBA, lambda pixels: jpegxl(pixels, lossless=True)),
    "jxl grey alpha": (samples(2), lambda pixels: jpegxl(pixels, lossless=True)),
    "jxl 10 bits": (samples(1, "uint16") // 64, lambda pixels: jpegxl(pixels, lossless=True, bitspersample=10)),
    "jxl 16 bits rgb": (samples(3, "uint16"), lambda pixels: jpegxl(pixels, lossless=True)),
    "jxl 16 bits rgba": (samples(4, "uint16"), lambda pixels: jpegxl(pixels, lossless=True)),
    "jxl float": (samples(1, "float32") / 256, lambda pixels: jpegxl(pixels, lossless=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_pillow_does_not_read_is_what_was_stored_without_loss(tmp_path, name):
    pixels, encode = LOSSLESS[name]
    found = read(placed(tmp_path, bytes(encode(pixels))))
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, np.atleast_3d(pixels))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 96), (256, 256), (1, 1), (9, 700), (1200, 2)])
@pytest.mark.parametrize("distance", [0, 1])
def test_the_header_of_jpeg_xl_says_the_size_in_each_of_its_ways(tmp_path, height, width, distance):
    pixels = np.zeros((height, width, 3), np.uint8)
    data = jpegxl(pixels, lossless=True) if distance == 0 else jpegxl(pixels, distance=distance)
    assert read(placed(tmp_path, data)).shape == pixels.shape


def test_a_box_of_chosen_channels_is_a_part_and_the_picture_is_decoded_once_for_a_plan(tmp_path):
    with closing(open_source(placed(tmp_path, encoded(RGB, "PNG")), channels=[2, 0])) as source:
        rows, columns = (Span(0, 30), Span(20, HEIGHT)), (Span(0, 40), Span(33, WIDTH))
        source.prepare(ReadPlan(rows=rows, columns=columns), cache_bytes=0)
        for y in rows:
            for x in columns:
                out = np.empty((y.length, x.length, 2), np.uint8)
                source.read(Box(y, x), out)
                np.testing.assert_array_equal(out, RGB[y.start : y.stop, x.start : x.stop, [2, 0]])
        assert source.count().chunks_decoded == 1


def test_reads_without_a_plan_decode_it_once_and_after_the_plan_nothing_is_kept(tmp_path):
    with closing(open_source(placed(tmp_path, encoded(RGB, "PNG")))) as source:
        out = np.empty((1, WIDTH, 3), np.uint8)
        for y in range(5):
            source.read(Box(Span(y, y + 1), Span(0, WIDTH)), out)
        assert source.count().chunks_decoded == 1
        assert source._reader._cache.held_bytes == RGB.nbytes
        source.prepare(ReadPlan(rows=(Span(0, 1), Span(1, 2)), columns=(Span(0, WIDTH),)), cache_bytes=0)
        for y in (0, 1):
            source.read(Box(Span(y, y + 1), Span(0, WIDTH)), out)
        assert source._reader._cache.held_bytes == 0


@pytest.mark.parametrize(
    ("data", "alpha"),
    [
        (encoded(RGBA, "PNG"), 3),
        (encoded(Image.fromarray(RGBA).convert("LA"), "PNG"), 1),
        (encoded(RGB, "PNG"), None),
        (encoded(RGBA, "WEBP"), 3),
        (encoded(RGBA, "JPEG2000"), 3),
        (jpegxl(RGBA, lossless=True), 3),
    ],
)
def test_which_channel_is_alpha_is_known(tmp_path, data, alpha):
    with closing(open_source(placed(tmp_path, data))) as source:
        assert source.alpha == alpha


def test_alpha_is_left_out_for_a_network_of_three_channels_and_said(tmp_path):
    path = placed(tmp_path, encoded(RGBA, "PNG"))
    with closing(open_source(path)) as source:
        leave_out_alpha(source, 3)
        out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        source.read(Box(Span(0, HEIGHT), Span(0, WIDTH)), out)
        np.testing.assert_array_equal(out, RGBA[..., :3])
        assert "alpha channel (3) was left out" in source.metadata.told[0]
    with closing(open_source(path, channels=[0, 1, 3])) as source:
        leave_out_alpha(source, 2)
        assert source.channels == 3


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[274] = orientation
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_is_not_applied_and_that_is_said(tmp_path, kind):
    data = encoded(RGB, kind, exif=exif(6).tobytes(), **({"lossless": True} if kind == "WEBP" else {}))
    with closing(open_source(placed(tmp_path, data))) as source:
        assert (source.height, source.width) == (HEIGHT, WIDTH)
        assert ["orientation 6 is not applied" in note for note in source.metadata.notes] == [True]
    with closing(open_source(placed(tmp_path, encoded(RGB, kind)))) as source:
        assert source.metadata.notes == ()


INTACT = {
    "png": encoded(RGB, "PNG"),
    "jpeg": encoded(RGB, "JPEG"),
    "jpeg with a small picture": encoded(RGB, "JPEG", exif=b"Exif\0\0" + encoded(GREY, "JPEG")),
    "bmp": encoded(RGB, "BMP"),
    "webp": encoded(RGB, "WEBP"),
    "jp2": encoded(RGB, "JPEG2000"),
    "jxl": jpegxl(RGB, lossless=True),
}


@pytest.mark.parametrize("name", INTACT)
def test_a_truncated_picture_is_an_error_or_filled_and_told(tmp_path, name):
    path = placed(tmp_path, INTACT[name][: -len(INTACT[name]) // 4])
    with pytest.raises(SourceError, match=r"picture\.dat: .*damaged"):
        read(path)
    with closing(open_source(path, on_corrupt="fill", corrupt_value=7)) as source:
        out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        source.read(Box(Span(0, HEIGHT), Span(0, WIDTH)), out)
        assert (out == 7).all()
        assert [area.box for area in source.damaged] == [Box(Span(0, HEIGHT), Span(0, WIDTH))]


def png_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(RGB, "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    return bytes(data)


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(RGB, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(RGB, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("data", [png_of(20000, 20000), bmp_of(20000, 20000), jpeg_of(20000, 20000)])
def test_a_size_that_the_file_cannot_hold_is_refused_before_decoding(tmp_path, data):
    with pytest.raises(SourceError, match=r"20000 x 20000 pixels take at least \d+ bytes, but the file has"):
        open_source(placed(tmp_path, data))


def test_more_than_is_decoded_whole_is_refused_with_what_it_takes(tmp_path):
    data = bytearray(encoded(RGB, "JPEG2000", no_jp2=True))
    data[8:16] = struct.pack(">II", 40000, 40000)
    with pytest.raises(SourceError, match=r"40000 x 40000 pixels, which takes 4\.5 GiB when decoded.*tiled TIFF"):
        open_source(placed(tmp_path, bytes(data)))


def test_pixels_of_another_size_than_the_header_says_are_damage(tmp_path, monkeypatch):
    start = b"\x89PNG\r\n\x1a\n"
    liar = replace(picture_formats._BY_MAGIC[start], decode=lambda _data, _header: RGB[:-1])
    monkeypatch.setitem(picture_formats._BY_MAGIC, start, liar)
    with pytest.raises(SourceError, match=rf"decodes to \({HEIGHT - 1}, {WIDTH}, 3\) uint8 instead of {HEIGHT} x"):
        read(placed(tmp_path, encoded(RGB, "PNG")))


REFUSED = {
    "cmyk": (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"), r"is a CMYK picture.*convert\('RGB'\)"),
    "animated png": (
        encoded(Image.fromarray(RGB), "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        "animated PNG",
    ),
    "animated webp": (
        encoded(Image.fromarray(RGB), "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        "animated WebP",
    ),
    "animated jxl": (jpegxl(np.stack([RGB, RGB[::-1]]), lossless=True), "animated JPEG XL"),
    "bmp rle": (
        encoded(GREY, "BMP")[:30] + struct.pack("<I", 1) + encoded(GREY, "BMP")[34:],
        "run-length",
    ),
    "jp2 signed": (
        bytes(imagecodecs.jpeg2k_encode(samples(1).astype("int16") - 99, level=0)),
        "signs",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_with_what_to_do(tmp_path, name):
    data, message = REFUSED[name]
    with pytest.raises(SourceError, match=rf"picture\.dat: .*{message}"):
        open_source(placed(tmp_path, data))


def test_the_way_out_for_cmyk_leads_to_a_picture_that_is_read(tmp_path):
    path = placed(tmp_path, REFUSED["cmyk"][0])
    with pytest.raises(SourceError) as caught:
        open_source(path)
    program = str(caught.value).split('-c "')[1].rpartition('"')[0]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert read(tmp_path / "rgb.png").shape == RGB.shape


def test_levels_series_planes_and_pixel_sizes_are_refused(tmp_path):
    path = placed(tmp_path, encoded(RGB, "PNG"))
    for options in ({"level": 1}, {"series": 1}, {"z": 1}, {"t": 1}, {"mpp": 0.5}, {"axes": "CYX"}, {"axes": "YX"}):
        with pytest.raises(OptionError, match=r"picture\.dat"):
            open_source(path, **options)
    with pytest.raises(ChannelError, match="has 3"):
        open_source(path, channels=[3])


def test_the_identity_names_the_file_and_what_was_chosen_of_it(tmp_path):
    path = placed(tmp_path, encoded(RGB, "PNG"))
    with closing(open_source(path)) as source, closing(open_source(path, channels=[0])) as other:
        assert source.identity()["kind"] == "picture"
        assert source.identity() != other.identity()
        before = source.identity()
    path.write_bytes(encoded(RGB[::-1], "PNG"))
    with closing(open_source(path)) as source:
        assert source.identity() != before


def test_a_picture_that_does_not_fit_the_budget_is_refused_with_what_it_would_need(tmp_path):
    path = placed(tmp_path, encoded(np.zeros((9000, 9000), np.uint8), "PNG"))
    model = deploy(prepare_network(onnx.load_from_string(onnx_bytes("unet_d1")), name="unet"), image_dtype="uint8")
    with closing(open_source(path)) as source, closing(Session(model, memory_bytes=250 << 20, threads=1)) as session:
        assert source.held_bytes > 9000 * 9000
        with pytest.raises(BudgetError, match=r"needs about .* raise --memory"):
            session.image_run(source, ArraySink(), Wish()).run()
