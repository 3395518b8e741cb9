"""The kernel's own figure for a run's peak memory is within ``--memory``, in whatever form image and result are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from tests.support.folders import ROOT

LAUNCHER = ROOT / "benchmarks" / "memory_matrix" / "launch.py"
MODEL = ROOT / "models" / "stain_unet.onnx"
MIB = 1 << 20
HEIGHT, WIDTH = 700, 900
ASKED_OVER_USED = 1.25
"""The budget that a refusal asks for may be so many times what a run within it takes."""


def launched(folder: Path, *command: object) -> tuple[int, float, str]:
    """Exit status, peak resident MiB, and what was said, of a command in a process of its own."""
    request = {
        "command": [sys.executable, *map(str, command)],
        "folder": str(folder),
        "environment": dict(os.environ),
        "kill_at": None,
    }
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(LAUNCHER)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["launcher_bytes"] < 24 * MIB, "a child's peak would be that of the launcher"
    return answer["status"], answer["peak_bytes"] / MIB, answer["err"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bundle, and one image in several forms."""
    folder = tmp_path_factory.mktemp("memory")
    random = np.random.default_rng(0)
    image = np.kron(
        random.integers(0, 256, (-(-HEIGHT // 20), WIDTH // 20, 3), dtype=np.uint8), np.ones((20, 20, 1), "u1")
    )
    image = np.ascontiguousarray(image[:HEIGHT])
    np.save(folder / "image.npy", image)
    tifffile.imwrite(folder / "tiles.tif", image, tile=(256, 256), compression="zlib", photometric="rgb")
    tifffile.imwrite(folder / "strip.tif", image, rowsperstrip=HEIGHT, compression="zlib", photometric="rgb")
    (folder / "image.png").write_bytes(imagecodecs.png_encode(image))
    zarr.create_array(folder / "image.zarr", shape=image.shape, chunks=(512, 512, 3), dtype="u1")[:] = image
    for name, options in {"fixed": ("--scale", "255"), "measured": ("--normalize", "zscore")}.items():
        command = [sys.executable, "-m", "exactile", "convert", MODEL, "-o", folder / f"{name}.bundle", *options]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def least_budget(place: Path, *arguments: object) -> float:
    """MiB that a refusal asks for."""
    status, _, told = launched(place, "-m", "exactile", "run", *arguments, "--memory", "1MiB")
    assert status == 2
    return float(re.search(r"needs about ([\d.]+) MiB", told)[1])


@pytest.mark.parametrize(
    ("bundle", "image", "target", "options"),
    [
        ("fixed", "tiles.tif", "o.tif", ()),
        ("fixed", "strip.tif", "o.ome.tif", ("--plan", "tile")),
        ("fixed", "image.zarr", "o.zarr", ("--axes", "YXC", "--plan", "strip")),
        ("fixed", "image.npy", "o.npy", ("--plan", "whole")),
        ("fixed", "tiles.tif", "o.tif", ("--preview", "--overlay")),
        ("measured", "tiles.tif", "o.zarr", ()),
        ("measured", "image.zarr", "o.npy", ("--axes", "YXC")),
    ],
)
def test_a_run_within_the_least_budget_and_within_more_keeps_it(place, bundle, image, target, options):
    """And what a refusal asks for is not much more than the run takes."""
    arguments = (f"{bundle}.bundle", image, "-o", target, "--overwrite", "--no-progress", *options)
    asked = least_budget(place, *arguments)
    peaks = []
    for budget in (asked, 1.5 * asked):
        status, peak, told = launched(place, "-m", "exactile", "run", *arguments, "--memory", f"{budget}MiB")
        assert status == 0, told
        assert peak <= budget
        peaks.append(peak)
    assert asked <= ASKED_OVER_USED * peaks[0]
