"""OME-Zarr 0.5: read back by zarr and ome-zarr-py, resumed to the same bytes, beside what is there already."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.contract import LabelClass
from exactile.errors import OptionError, OutputExistsError, ResumeError, SinkError
from exactile.sinks.files.part_folder import PartFolder
from exactile.sinks.open import open_sink
from exactile.sinks.resume import safekeeping
from exactile.sinks.zarr.sink import ZarrSink
from tests.sinks.test_pixels import noise, partitions, row_major, spec_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ome-zarr-py uses what it has deprecated

LABELS = (LabelClass(value=0, name="background", rgb=(0, 0, 0)), LabelClass(value=1, name="cell", rgb=(255, 128, 0)))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def begun(path: Path, pixels: np.ndarray, *, resume: bool = False, run=None, **options) -> ZarrSink:
    sink = ZarrSink(path, resumable=True, **options)
    sink.describe(run or {}, resume=resume)
    sink.begin(replace(spec_of(pixels), pixel_size_um=(0.5, 0.25), labels=LABELS))
    return sink


def put(sink: ZarrSink, pixels: np.ndarray, boxes) -> None:
    for box in boxes:
        if not sink.is_done(box):
            sink.write(box, pixels[(..., *box.slices())])


def write(path: Path, pixels: np.ndarray, boxes=None, **options) -> None:
    sink = begun(path, pixels, **options)
    put(sink, pixels, boxes or row_major(*pixels.shape[-2:], 33, 40))
    sink.finish()


def as_killed(folder: Path) -> Path:
    """Copy what a process killed now would leave of ``a.zarr``, though threads still write and rename its chunks.

    The journal first: it names chunks that have their name already.
    """
    killed = folder / "killed"
    killed.mkdir()
    shutil.copy(folder / ".a.zarr.journal", killed)
    part = folder / ".a.zarr.part"
    for path in sorted(part.rglob("*")):
        target = killed / path.relative_to(folder)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # it has got its name meanwhile
            shutil.copy(path, target)
    return killed


@settings(max_examples=15, deadline=None)
@given(
    partition=partitions(largest=60),
    channels=st.integers(0, 2),
    dtype=st.sampled_from(("uint8", "uint16", "float32")),
    compression=st.sampled_from(("zstd", "zlib", "none")),
    data=st.data(),
)
def test_every_pixel_comes_back_and_a_killed_run_ends_in_the_same_bytes(
    tmp_path_factory, partition, channels, dtype, compression, data
):
    height, width, boxes = partition
    folder = tmp_path_factory.mktemp("zarr")
    pixels = noise((channels, height, width) if channels else (height, width), dtype)
    options = {"tile": 16, "compression": compression}
    whole = begun(folder / "a.zarr", pixels, **options)
    reached = data.draw(st.integers(0, len(boxes)))
    put(whole, pixels, boxes[:reached])
    killed = as_killed(folder)
    put(whole, pixels, boxes[reached:])
    whole.finish()
    again = begun(killed / "a.zarr", pixels, resume=True, **options)
    put(again, pixels, boxes)
    again.finish()
    assert tree(killed / "a.zarr") == tree(folder / "a.zarr")
    assert [path.name for path in killed.iterdir()] == ["a.zarr"]
    level = "0" if channels else "labels/segmentation/0"
    np.testing.assert_array_equal(zarr.open_array(killed / "a.zarr" / level, mode="r")[...], pixels, strict=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("compression", ["zstd", "zlib", "none"])
@pytest.mark.parametrize(("shape", "dtype"), [((90, 75), "uint8"), ((90, 75), "uint16"), ((3, 40, 50), "float32")])
def test_chunks_are_those_that_the_zarr_package_writes(tmp_path, shape, dtype, compression):
    """To the byte, at the edges, and none where all is zero."""
    pixels = noise(shape, dtype)
    pixels[..., 32:48, 16:32] = 0
    write(tmp_path / "a.zarr", pixels, tile=16, compression=compression)
    written = tmp_path / "a.zarr" / ("0" if pixels.ndim == 3 else "labels/segmentation/0")
    zlib = zarr.codecs.BloscCodec(cname="zlib", clevel=6, shuffle="noshuffle", typesize=1)
    compressors = {"zstd": zarr.codecs.ZstdCodec(level=1), "zlib": zlib, "none": None}
    chunks = (1,) * (pixels.ndim - 2) + (16, 16)
    expected = zarr.create_array(
        tmp_path / "b.zarr", shape=shape, chunks=chunks, dtype=dtype, compressors=compressors[compression]
    )
    expected[...] = pixels
    found = tree(written / "c")
    assert found == tree(tmp_path / "b.zarr" / "c")
    assert ("0/2/1" if pixels.ndim == 3 else "2/1") not in found


def test_a_lost_or_changed_chunk_is_computed_again(tmp_path):
    pixels, boxes = noise((200, 170), "uint8"), row_major(200, 170, 50, 170)
    write(tmp_path / "whole.zarr", pixels, boxes, tile=16, run={})
    for harm in (lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x")):
        sink = begun(tmp_path / "a.zarr", pixels, tile=16)
        put(sink, pixels, boxes[:3])
        sink.abort()
        harm(max((tmp_path / ".a.zarr.part" / "labels" / "segmentation" / "0" / "c").rglob("9")))
        again = begun(tmp_path / "a.zarr", pixels, resume=True, tile=16)
        assert [again.is_done(box) for box in boxes].count(True) < 3
        put(again, pixels, boxes)
        again.finish()
        assert tree(tmp_path / "a.zarr") == tree(tmp_path / "whole.zarr")
        shutil.rmtree(tmp_path / "a.zarr")


def test_ome_zarr_py_finds_the_label_with_its_levels_colours_and_scales(tmp_path):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    pixels = (np.arange(300 * 200) // 7 % 2).astype(np.uint8).reshape(300, 200)
    write(tmp_path / "a.zarr", pixels, tile=64)
    (node,) = Reader(parse_url(tmp_path / "a.zarr" / "labels" / "segmentation"))()
    assert [level.shape for level in node.data] == [(300, 200), (150, 100), (75, 50), (38, 25)]
    for number, level in enumerate(node.data):
        np.testing.assert_array_equal(level.compute(), pixels[:: 2**number, :: 2**number])
    document = json.loads((tmp_path / "a.zarr/labels/segmentation/zarr.json").read_text())
    ome = document["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert ome["multiscales"][0]["axes"] == [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scales = [d["coordinateTransformations"][0]["scale"] for d in ome["multiscales"][0]["datasets"]]
    assert scales == [[0.5 * 2**n, 0.25 * 2**n] for n in range(4)]
    assert ome["image-label"]["colors"][1] == {"label-value": 1, "rgba": [255, 128, 0, 255]}
    assert ome["image-label"]["properties"][1] == {"label-value": 1, "class": "cell"}


@pytest.fixture
def image(tmp_path) -> Path:
    """A container with an image and one label in it, as ome-zarr-py writes them."""
    from ome_zarr.format import FormatV05
    from ome_zarr.writer import write_image, write_labels

    group = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=3)
    write_image(np.zeros((60, 50), np.uint8), group, axes="yx", fmt=FormatV05())
    write_labels(np.ones((60, 50), np.uint8), group, name="theirs", axes="yx", fmt=FormatV05())
    return tmp_path / "image.zarr"


def test_a_label_goes_beside_those_that_are_there(image):
    before, pixels = tree(image), noise((60, 50), "uint8")
    write(image, pixels, label="ours", tile=16)
    write(image / "labels" / "more", pixels, tile=16)
    after = tree(image)
    assert {name for name in before if after[name] != before[name]} == {"labels/zarr.json"}
    group = zarr.open_group(image / "labels", mode="r")
    assert group.attrs["ome"]["labels"] == ["theirs", "ours", "more"]
    np.testing.assert_array_equal(group["ours/0"][...], pixels)
    assert group["more"].attrs["ome"]["image-label"]["source"] == {"image": "../../"}
    assert sorted(path.name for path in (image / "labels").iterdir()) == ["more", "ours", "theirs", "zarr.json"]


@pytest.mark.parametrize("moment", ["before its name", "with its name"])
def test_a_label_killed_on_the_way_to_its_name_is_completed(image, monkeypatch, moment):
    monkeypatch.setattr(safekeeping, "COMMIT_SECONDS", 0)
    pixels, boxes = noise((60, 50), "uint8"), row_major(60, 50, 33, 40)
    publish = PartFolder.publish

    def failing(part):
        if moment == "with its name":
            publish(part)
        raise OSError(errno.EIO, "gone")

    sink = begun(image, pixels, label="ours", tile=16)
    put(sink, pixels, boxes)
    with monkeypatch.context() as patched:
        patched.setattr(PartFolder, "publish", failing)
        with pytest.raises(OSError, match="gone"):
            sink.finish()
    sink.abort()
    if moment == "before its name":
        assert sink.keeps
        again = begun(image, pixels, label="ours", tile=16, resume=True)
        assert all(again.is_done(box) for box in boxes)
        again.finish()
    group = zarr.open_group(image / "labels", mode="r")
    assert group.attrs["ome"]["labels"] == ["theirs", "ours"]
    np.testing.assert_array_equal(group["ours/0"][...], pixels)
    assert sorted(path.name for path in (image / "labels").iterdir()) == ["ours", "theirs", "zarr.json"]


def test_what_is_there_is_kept_unless_overwritten(image):
    before, pixels = tree(image), noise((60, 50), "uint8")
    with pytest.raises(OutputExistsError, match="theirs"):
        write(image, pixels, label="theirs")
    with pytest.raises(SinkError, match="need a new container"):
        write(image, noise((2, 60, 50), "uint8"))
    assert tree(image) == before
    write(image, pixels, label="theirs", overwrite=True, tile=16)
    np.testing.assert_array_equal(zarr.open_array(image / "labels/theirs/0", mode="r")[...], pixels)


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "letter.txt").write_text("dear")
    with pytest.raises(SinkError, match="no Zarr group"):
        ZarrSink(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    with pytest.raises(SinkError, match="format 2"):
        ZarrSink(tmp_path / "old.zarr")
    with pytest.raises(SinkError, match="does not exist"):
        begun(tmp_path / "no" / "a.zarr", noise((60, 50), "uint8"))


@pytest.mark.parametrize("options", [{"compression": "lzw"}, {"label": "a/b"}, {"label": ".."}, {"tile": 17}])
def test_options_that_cannot_be_are_refused(tmp_path, options):
    with pytest.raises(OptionError):
        ZarrSink(tmp_path / "a.zarr", **options)


def test_an_aborted_run_leaves_nothing_before_and_a_part_after_the_first_box(tmp_path):
    pixels = noise((60, 50), "uint8")
    sink = begun(tmp_path / "a.zarr", pixels, tile=16)
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    sink = begun(tmp_path / "a.zarr", pixels, tile=16)
    put(sink, pixels, row_major(60, 50, 20, 50)[:1])
    sink.abort()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.zarr.journal", ".a.zarr.part"]
    with pytest.raises(ResumeError, match=r"output\.label"):
        begun(tmp_path / "a.zarr", pixels, tile=16, resume=True, label="other")
    with pytest.raises(OutputExistsError, match="--resume"):
        begun(tmp_path / "a.zarr", pixels, tile=16)
    plain = ZarrSink(tmp_path / "b.zarr", tile=16)
    plain.begin(spec_of(pixels))
    put(plain, pixels, row_major(60, 50, 20, 50)[:1])
    plain.abort()
    assert not list(tmp_path.glob("*b.zarr*"))


def test_the_name_chooses_the_sink(tmp_path):
    assert isinstance(open_sink(tmp_path / "a.ome.zarr"), ZarrSink)
    assert open_sink(tmp_path / "a.zarr" / "labels" / "cells").path == tmp_path / "a.zarr"
    with pytest.raises(OptionError, match="has labels with names"):
        open_sink(tmp_path / "a.tif", label="cells")
