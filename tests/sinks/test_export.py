"""Results in another format have the same pixels, whatever library reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr

import exactile.export
from exactile.errors import InputOverwrittenError, OptionError, OutputExistsError, SourceError
from exactile.export import export
from exactile.geometry import Box, Span
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.zarr.sink import ZarrSink
from tests.support.command import within


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch):
    monkeypatch.setattr(exactile.export, "BOX_PX", 64)


def written(path, pixels: np.ndarray, **options) -> None:
    sink = ZarrSink(path, tile=16, **options)
    channels = len(pixels) if pixels.ndim == 3 else 0
    height, width = pixels.shape[-2:]
    sink.begin(
        ResultSpec(height=height, width=width, channels=channels, dtype=pixels.dtype.name, pixel_size_um=(0.5, 0.25))
    )
    sink.write(Box(Span(0, height), Span(0, width)), pixels)
    sink.finish()


@pytest.mark.parametrize("shape", [(150, 131), (1, 200), (64, 64), (3, 70, 90)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy", ".zarr"])
def test_pixels_are_the_same(tmp_path, shape, dtype, suffix):
    pixels = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    written(tmp_path / "a.zarr", pixels)
    target = tmp_path / f"b{suffix}"
    assert export(tmp_path / "a.zarr", target) == shape
    if suffix == ".zarr":
        inner = target if len(shape) == 3 else target / "labels" / "segmentation"
        found = zarr.open_array(inner / "0", mode="r")[:]
    else:
        found = np.load(target) if suffix == ".npy" else tifffile.imread(target)
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, pixels)


def test_a_pyramid_and_the_pixel_size_come_with_it(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 5, (1100, 1300), np.uint8)
    written(tmp_path / "a.zarr", pixels)
    export(tmp_path / "a.zarr", tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(1100, 1300), (550, 650), (275, 325)]
        assert np.array_equal(levels[1].asarray(), pixels[::2, ::2])
        assert 'PhysicalSizeX="0.25"' in file.ome_metadata


def test_one_of_several_labels(tmp_path):
    one, other = np.zeros((40, 40), np.uint8), np.ones((40, 40), np.uint8)
    written(tmp_path / "a.zarr", one, label="one")
    written(tmp_path / "a.zarr", other, label="other")
    export(tmp_path / "a.zarr", tmp_path / "a.npy", label="other")
    assert np.array_equal(np.load(tmp_path / "a.npy"), other)
    with pytest.raises(OptionError, match="has no label named 'third'"):
        export(tmp_path / "a.zarr", tmp_path / "b.npy", label="third")


def test_what_cannot_be_copied_leaves_nothing(tmp_path):
    with pytest.raises(SourceError):
        export(tmp_path / "missing.zarr", tmp_path / "a.tif")
    array = zarr.create_array(tmp_path / "wide.zarr", shape=(20, 20), dtype="float64")
    array[:] = 1
    with pytest.raises(OptionError, match="would not be copied as they are"):
        export(tmp_path / "wide.zarr", tmp_path / "a.tif")
    written(tmp_path / "a.zarr", np.zeros((20, 20), np.uint8))
    with pytest.raises(InputOverwrittenError):
        export(tmp_path / "a.zarr", tmp_path / "a.zarr", overwrite=True)
    (tmp_path / "there.tif").write_bytes(b"")
    with pytest.raises(OutputExistsError):
        export(tmp_path / "a.zarr", tmp_path / "there.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "there.tif", "wide.zarr"]


def test_the_command(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 5, (100, 130), np.uint8)
    written(tmp_path / "a.zarr", pixels)
    done = within("export", tmp_path / "a.zarr", "-o", tmp_path / "a.tif", "--compression", "zstd", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shape"] == [100, 130]
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)
    again = within("export", tmp_path / "a.zarr", "-o", tmp_path / "a.tif")
    assert again.returncode == 2
    assert "exists already" in again.stderr
