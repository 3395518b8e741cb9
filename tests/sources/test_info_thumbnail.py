"""``exactile info IMAGE --thumbnail``: means of blocks of the level that is near, by numpy over whole images."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import tifffile
from PIL import Image

from exactile.errors import OutputExistsError
from exactile.sources.array import ArraySource
from exactile.sources.npy.source import NpySource
from exactile.sources.open import open_source
from exactile.views.thumbnail import make_thumbnail, thumbnail_shape
from tests.support.command import within
from tests.support.image_info import noise, told, write_stack
from tests.support.pictures import samples
from tests.support.slides import tissue
from tests.support.source_pixels import all_pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("thumbnails")


@pytest.fixture(scope="module")
def stack(folder):
    return write_stack(folder / "stack.ome.tif")


def test_a_thumbnail_holds_the_means_of_blocks():
    """The oracle cuts 1403 rows into 422 blocks and 1702 columns into 512, and takes each mean by itself."""
    image = tissue(1403, 1702)
    picture = make_thumbnail(ArraySource(image), together=True)
    assert picture.pixels.shape == (*thumbnail_shape(1403, 1702), 3) == (422, 512, 3)
    for row in (0, 1, 200, 421):
        for column in (0, 3, 300, 511):
            y, x = (slice(at * size // parts, (at + 1) * size // parts)
                    for at, size, parts in ((row, 1403, 422), (column, 1702, 512)))  # fmt: skip
            np.testing.assert_array_equal(picture.pixels[row, column], image[y, x].mean(axis=(0, 1)).round())
    assert "means of blocks of pixels" in picture.said


def test_other_samples_are_stretched_between_percentiles_and_pixels_without_data_left_out(tmp_path):
    image = noise(1026, 1536, 1, dtype="float32") * 1000
    image[:300] = np.nan
    image[300, :, 0] = np.inf
    path = tmp_path / "a.npy"
    np.save(path, image)
    with closing(NpySource(path)) as source:
        picture = make_thumbnail(source, together=False)
    assert picture.pixels.shape == (342, 512, 3)
    blocks = np.where(np.isfinite(image), image, np.nan).astype("f8")[300:, :, 0].reshape(242, 3, 512, 3)
    means = np.nanmean(blocks, axis=(1, 3))
    low, high = np.percentile(means, [1, 99])
    expected = (np.clip((means - low) / (high - low), 0, 1) * 255).round()
    np.testing.assert_array_equal(picture.pixels[100:], np.broadcast_to(expected[..., None], (242, 512, 3)))
    assert not picture.pixels[:100].any()
    assert "percentiles 1 and 99" in picture.said[1]


def test_of_images_that_are_too_large_rows_in_the_middle_of_each_block_are_read():
    class Counted(ArraySource):
        pixels = 0

        def read(self, box, out):
            self.pixels += box.area
            super().read(box, out)

    image = noise(2048, 3072, dtype="uint8")
    source = Counted(image)
    picture = make_thumbnail(source, together=True, most_read_px=341 * 3072 * 2)
    assert source.pixels == 341 * 3072 * 2
    y = 100 * 2048 // 341 + 2
    assert picture.pixels[100, 7, 0] == image[y : y + 2, 42:48].mean().round()
    assert picture.said[0] == "means of 2 rows in the middle of each block of pixels"


def test_a_thumbnail_is_written_from_the_level_that_is_near(folder):
    path, target = folder / "pyramid.tif", folder / "pyramid.png"
    full = noise(4096, 2048)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(full, tile=(256, 256), subifds=3)
        for step in (2, 4, 8):
            level = full[::step, ::step] if step != 8 else np.zeros((512, 512), "uint16")
            tiff.write(level, tile=(256, 256), subfiletype=1)
    found = told(path, "--thumbnail", target)
    made = found["thumbnail"]
    assert (made["level"], made["height"], made["width"]) == (2, 512, 256)
    assert np.asarray(Image.open(target)).shape == (512, 256, 3)
    assert any("percentiles 1 and 99" in note for note in made["notes"])
    with closing(open_source(path, level=2)) as source:
        whole = all_pixels(source)
    means = whole[..., 0].reshape(512, 2, 256, 2).mean(axis=(1, 3))
    low, high = np.percentile(means, [1, 99])
    expected = (np.clip((means - low) / (high - low), 0, 1) * 255).round()
    np.testing.assert_array_equal(np.asarray(Image.open(target))[..., 0], expected)


def test_a_thumbnail_of_a_stack_shows_the_plane_and_channels_that_were_chosen(stack, folder):
    target = folder / "plane.png"
    pixels = noise(2, 3, 4, 600, 700)
    made = told(stack, "--z", 2, "--t", 1, "--channels", "1", "--thumbnail", target)["thumbnail"]
    assert made["level"] == 0
    first = pixels[1, 1, 2]
    rows, columns = thumbnail_shape(600, 700)
    mean = first[: 600 // rows, : 700 // columns].mean()
    other = pixels[1, 0, 2][: 600 // rows, : 700 // columns].mean()
    low, high = (float(part) for part in made["notes"][2].replace(" is black and", "").split(" white")[0].split())
    assert np.asarray(Image.open(target))[0, 0, 0] == round(np.clip((mean - low) / (high - low), 0, 1) * 255)
    assert mean != other
    shown = " ".join(told(stack, "--thumbnail", target, "--overwrite")["thumbnail"]["notes"])
    assert shown.count("is black") == 3  # each channel is stretched by itself


def test_thumbnails_replace_nothing_that_is_not_theirs(stack, folder):
    target = folder / "kept.png"
    target.write_bytes(b"kept")
    done = within("info", stack, "--thumbnail", target)
    assert done.returncode == OutputExistsError.exit_status
    assert target.read_bytes() == b"kept"
    assert "does not end in .png" in within("info", stack, "--thumbnail", folder / "a.jpg").stderr
    Image.fromarray(samples()).save(folder / "image.png")
    before = (folder / "image.png").read_bytes()
    done = within("info", folder / "image.png", "--thumbnail", folder / "image.png", "--overwrite")
    assert done.returncode == 2
    assert (folder / "image.png").read_bytes() == before
