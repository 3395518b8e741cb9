"""Files and folders become a list of images, in an order that is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from exactile.cli.run_many import result_path
from exactile.errors import SourceError
from exactile.sources.listing import LISTED_SUFFIXES, describe_passed_over, find_images


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images, what belongs to images, and what has nothing to do with them."""
    root = tmp_path / "slides"
    for name in (
        "b.tif",
        "a.TIFF",
        "c.ome.tif",
        "d.svs",
        "e.npy",
        "notes.txt",
        "f.png",
        "f.txt",
        ".hidden.tif",
        "g.dcm",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "m.mrxs").write_bytes(b"")
    (root / "m").mkdir()
    (root / "m" / "Data0000.tif").write_bytes(b"")
    (root / "z.zarr").mkdir()
    (root / "y").mkdir()
    (root / "y" / "zarr.json").write_text("{}")
    return root


def listed(paths) -> list:
    return list(find_images(paths).images)


IMAGES = ["a.TIFF", "b.tif", "c.ome.tif", "d.svs", "e.npy", "f.png", "m.mrxs", "y", "z.zarr"]


def test_a_folder_gives_its_images_sorted_by_name(folder):
    assert listed([folder]) == listed([str(folder)]) == [folder / name for name in IMAGES]


def test_what_is_named_keeps_its_order_and_its_name_does_not_matter(folder):
    named = [folder / "notes.txt", folder / "z.zarr", folder / "a.TIFF", folder / "y", folder / ".hidden.tif"]
    assert listed(named) == named
    assert listed(str(name) for name in named) == named


def test_an_image_that_is_named_twice_is_listed_once(folder):
    rest = [folder / name for name in IMAGES if name != "d.svs"]
    assert listed([folder / "d.svs", folder, str(folder / "b.tif")]) == [folder / "d.svs", *rest]


def test_addresses_are_listed_as_they_are():
    addresses = ["https://host/a.zarr", "s3://bucket/b.zarr"]
    assert listed(addresses) == addresses
    assert listed(map(Path, addresses)) == addresses


def test_all_that_is_missing_is_named(folder):
    with pytest.raises(SourceError, match=r"gone\.tif, .*lost: no such file or folder"):
        listed([folder / "gone.tif", folder, folder / "lost"])


def test_a_folder_without_images_is_refused_with_what_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        SourceError,
        match=r"holds no images but 1 \.txt; files ending in \.tif, .*\.npy, .*\.mrxs.*only with --recursive",
    ):
        listed([tmp_path])


def test_nothing_gives_nothing():
    assert listed([]) == []


def test_suffixes_are_lower_case_for_they_are_compared_so():
    assert all(suffix == suffix.lower() for suffix in LISTED_SUFFIXES)


def test_what_is_passed_over_is_counted_and_hidden_files_are_not(folder):
    (folder / "sub").mkdir()
    (folder / "b.tif.preview.png").write_bytes(b"")
    (folder / "README").write_bytes(b"")
    passed = find_images([folder]).passed_over
    assert passed == {".dcm": 1, ".preview.png": 1, ".txt": 2, "file without a suffix": 1, "folder": 1}
    assert describe_passed_over(passed) == (
        "1 folder (--recursive enters them), 1 .dcm, 1 .preview.png, 2 .txt, 1 file without a suffix"
    )


def dicom(path: Path, sop_class: str = "1.2.840.10008.5.1.4.1.1.77.1.6") -> None:
    """What a listing looks at: the beginning of a DICOM file, in which its class stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + bytes(20) + sop_class.encode() + b"\x02\0" + bytes(200))


def test_a_folder_with_a_slide_in_dicom_files_and_no_other_image_is_one_image(tmp_path):
    for name in ("1.2.840.1/a", "1.2.840.1/b.dcm", "1.2.840.2/a.dcm", "mixed/a.dcm", "ct/a.dcm"):
        dicom(tmp_path / name, *(["1.2.840.10008.5.1.4.1.1.2"] if name.startswith("ct") else []))
    dicom(tmp_path / "1.2.840.1" / "ct.dcm", "1.2.840.10008.5.1.4.1.1.2")
    (tmp_path / "1.2.840.1" / ".hidden.tif").write_bytes(b"")
    (tmp_path / "1.2.840.1" / "notes.txt").write_text("")
    (tmp_path / "mixed" / "a.tif").write_bytes(b"")
    slides = [tmp_path / "1.2.840.1", tmp_path / "1.2.840.2"]
    assert listed([slides[0]]) == slides[:1]
    found = find_images([tmp_path])
    assert list(found.images) == slides
    assert found.passed_over == {"folder": 2}
    found = find_images([tmp_path], recursive=True)
    assert list(found.images) == [*slides, tmp_path / "mixed" / "a.tif"]
    assert found.passed_over == {".dcm": 2}
    with pytest.raises(
        SourceError, match=r"holds no images but 1 \.dcm; .* folders of a slide in DICOM files are taken"
    ):
        listed([tmp_path / "ct"])
    assert [result_path(slide, found, Path("out"), ".tif") for slide in slides] == [
        Path("out/1.2.840.1.tif"),
        Path("out/1.2.840.2.tif"),
    ]


def test_recursive_enters_folders_after_the_files_but_neither_zarr_nor_the_folder_of_a_slide(folder):
    for name in ("sub/deep/x.jpg", "sub/b.tif", ".hidden/y.tif", "z.zarr/0.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    found = find_images([folder], recursive=True)
    inner = [folder / "sub" / "b.tif", folder / "sub" / "deep" / "x.jpg"]
    assert list(found.images) == [*(folder / name for name in IMAGES), *inner]
    assert found.subfolders == {inner[0]: Path("sub"), inner[1]: Path("sub/deep")}
    assert "folder" not in found.passed_over


def test_a_folder_of_folders_says_how_they_are_entered(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"holds no images but 1 folder \(--recursive enters them\)"):
        listed([tmp_path])
    assert listed([tmp_path], recursive=True) == [tmp_path / "sub" / "a.png"]


def test_pictures_beside_a_slide_that_they_are_part_of_are_no_images(tmp_path):
    for name in ("slide.vms", "slide(0,1).jpg", "map.JPG"):
        (tmp_path / name).write_bytes(b"")
    assert listed([tmp_path]) == [tmp_path / "slide.vms"]


def test_a_bundle_given_as_an_image_is_told_what_comes_first(tmp_path):
    (tmp_path / "contract.json").write_text("{}")
    with pytest.raises(SourceError, match="is a bundle, not an image; the model comes first"):
        listed([tmp_path])
