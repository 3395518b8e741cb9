"""Resident memory stays within the budget, however large the image."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from exactile_converters.torch_export import export_onnx
from tests.support.command import run_json
from tests.support.folders import ROOT
from tests.support.nets import onnx_file
from tests.support.normed_modules import EncoderDecoder, normed, transposed

SIDE_PX = 256


def write_slide(path: Path, height: int, width: int) -> None:
    """A JPEG BigTIFF of random blobs; a few encoded tiles repeat, so that writing it is quick."""
    generator = np.random.default_rng(0)
    tiles = []
    for _ in range(7):
        coarse = generator.integers(0, 255, (SIDE_PX // 16, SIDE_PX // 16, 3), dtype=np.uint8)
        pixels = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
        tiles.append(imagecodecs.jpeg8_encode(pixels, level=85, colorspace="RGB", outcolorspace="YCBCR"))
    count = -(-height // SIDE_PX) * -(-width // SIDE_PX)
    tifffile.imwrite(
        path,
        (tiles[i % 7] for i in range(count)),
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(SIDE_PX, SIDE_PX),
        photometric="rgb",
        compression="jpeg",
        bigtiff=True,
    )


def peaks(folder: Path, model: Path, sizes: list[tuple[int, int]], *options: str) -> list[dict]:
    summaries = []
    for height, width in sizes:
        slide = folder / "slide.tif"
        write_slide(slide, height, width)
        summaries.append(run_json(model, slide, "-o", folder / "labels.tif", "--overwrite", *options))
        slide.unlink()
    return summaries


def check(square: dict, tall: dict, budget_bytes: int, plan: str = "tile") -> None:
    assert square["plan"] == tall["plan"] == plan
    assert square["peak_memory_bytes"] < budget_bytes
    assert tall["peak_memory_bytes"] < budget_bytes
    assert tall["peak_memory_bytes"] == pytest.approx(square["peak_memory_bytes"], rel=0.08)
    for summary in (square, tall):
        assert summary["chunks_decoded"] == summary["chunks_stored"]


def test_a_four_times_taller_image_peaks_the_same(tmp_path):
    """With the same tile; and each stored chunk is decoded once."""
    model = onnx_file(tmp_path, "unet_d1_rgb")
    options = ("--memory", "400MiB", "--tile", "768")
    check(*peaks(tmp_path, model, [(3000, 3000), (12000, 3000)], *options), 400 << 20)


def test_strips_of_a_four_times_taller_image_peak_the_same(tmp_path):
    """Full width, and each stored chunk is decoded once."""
    model = onnx_file(tmp_path, "unet_d1_rgb")
    options = ("--memory", "400MiB", "--plan", "strip", "--tile", "128x4096")
    check(*peaks(tmp_path, model, [(2000, 4096), (8000, 4096)], *options), 400 << 20, "strip")


def test_strips_take_no_more_than_predicted(tmp_path):
    """Rows for carries are cut out as soon as they are there; cut out last, they take twice the activations."""
    np.save(tmp_path / "image.npy", np.zeros((400, 4096, 3), np.uint8))
    model = ROOT / "models" / "stain_unet.onnx"
    options = ("--memory", "400MiB", "--plan", "strip", "--tile", "128x4096", "--scale", "255")
    summary = run_json(model, tmp_path / "image.npy", "-o", tmp_path / "labels.npy", *options)
    assert summary["peak_memory_bytes"] <= summary["predicted_memory_bytes"]


@pytest.mark.parametrize("memory", [600, 260])
def test_passes_over_kept_maps_take_no_more_than_predicted(tmp_path, memory):
    """Maps that are kept, the parts of tiles and the region of activations, which stays from pass to pass.

    With little memory most maps are in files, and two sets of their parts in memory.
    """
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8))
    model = tmp_path / "normed.onnx"
    export_onnx(EncoderDecoder(normed, transposed, (16, 16, 32)).eval(), model, 3, (64, 64), stride=4)
    options = ("--plan", "tile", "--memory", f"{memory}MiB", "--scale", "255", "--no-verify")
    summary = run_json(model, tmp_path / "image.npy", "-o", tmp_path / "labels.npy", *options)
    assert max(one["tiles"] for one in summary["passes"]) > 1
    assert summary["peak_memory_bytes"] <= summary["predicted_memory_bytes"] <= memory << 20


@pytest.mark.slow
def test_strips_of_100000_rows_peak_like_those_of_1000(tmp_path):
    model = onnx_file(tmp_path, "unet_d1_rgb")
    options = ("--memory", "400MiB", "--plan", "strip", "--tile", "128x4096")
    low, middle, high = peaks(tmp_path, model, [(1000, 4096), (10000, 4096), (100000, 4096)], *options)
    check(middle, high, 400 << 20, "strip")
    assert high["peak_memory_bytes"] == pytest.approx(low["peak_memory_bytes"], rel=0.1)


@pytest.mark.slow
def test_20000_pixels_square_and_80000_tall_within_2_gib(tmp_path):
    model = onnx_file(tmp_path, "unet_d1_rgb")
    check(*peaks(tmp_path, model, [(20000, 20000), (80000, 20000)], "--memory", "2GiB", "--plan", "tile"), 2 << 30)
