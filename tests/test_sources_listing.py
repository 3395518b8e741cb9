"""Files and folders become a list of images, in an order that is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from exactile.errors import SourceError
from exactile.sources.listing import LISTED_SUFFIXES, list_images


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images, what belongs to images, and what has nothing to do with them."""
    root = tmp_path / "slides"
    for name in ("b.tif", "a.TIFF", "c.ome.tif", "d.svs", "e.npy", "notes.txt", "f.png", ".hidden.tif", "g.dcm"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "m.mrxs").write_bytes(b"")
    (root / "m").mkdir()
    (root / "m" / "Data0000.tif").write_bytes(b"")
    (root / "z.zarr").mkdir()
    (root / "y").mkdir()
    (root / "y" / "zarr.json").write_text("{}")
    return root


IMAGES = ["a.TIFF", "b.tif", "c.ome.tif", "d.svs", "e.npy", "m.mrxs", "y", "z.zarr"]


def test_a_folder_gives_its_images_sorted_by_name(folder):
    assert list_images([folder]) == list_images([str(folder)]) == [folder / name for name in IMAGES]


def test_what_is_named_keeps_its_order_and_its_name_does_not_matter(folder):
    named = [folder / "notes.txt", folder / "z.zarr", folder / "a.TIFF", folder / "y", folder / ".hidden.tif"]
    assert list_images(named) == named
    assert list_images(str(name) for name in named) == named


def test_an_image_that_is_named_twice_is_listed_once(folder):
    rest = [folder / name for name in IMAGES if name != "d.svs"]
    assert list_images([folder / "d.svs", folder, str(folder / "b.tif")]) == [folder / "d.svs", *rest]


def test_addresses_are_listed_as_they_are():
    addresses = ["https://host/a.zarr", "s3://bucket/b.zarr"]
    assert list_images(addresses) == addresses
    assert list_images(map(Path, addresses)) == addresses


def test_all_that_is_missing_is_named(folder):
    with pytest.raises(SourceError, match=r"gone\.tif, .*lost: no such file or folder"):
        list_images([folder / "gone.tif", folder, folder / "lost"])


def test_a_folder_without_images_is_refused_with_what_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SourceError, match=r"holds no images; files ending in \.tif, .*\.npy, .*\.mrxs.*not entered"):
        list_images([tmp_path])


def test_nothing_gives_nothing():
    assert list_images([]) == []


def test_suffixes_are_lower_case_for_they_are_compared_so():
    assert all(suffix == suffix.lower() for suffix in LISTED_SUFFIXES)
