"""The benchmark that measures all but inference still runs: sessions take its engines for theirs."""

from __future__ import annotations

import numpy as np
import tifffile

from benchmarks.scaling.free_engine import run


def test_a_run_by_engines_that_cost_nothing_reads_and_writes_everything(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(256, 256), photometric="rgb")
    request = {"image": str(tmp_path / "image.tif"), "output": str(tmp_path / "labels.tif"), "tile": 256}
    run(request | {"memory_bytes": 8 << 30})
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert labels.shape == image.shape[:2]
    assert len(np.unique(labels)) == 4
