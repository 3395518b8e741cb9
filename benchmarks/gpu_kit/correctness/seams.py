"""The same network at the same shape gives a pixel the same bits whichever tile computes it, and each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_kit.correctness.plans import Way, largest_difference, run, tile_side
from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import picture
from benchmarks.gpu_kit.provider import Binding, gpu_session
from benchmarks.gpu_kit.sizes import sizes
from exactile.contract import DeployedModel

Offset = tuple[int, int]


def other_tiles(networks: Sequence[str], binding: Binding, folder: Path) -> dict[str, Any]:
    """Check images that begin a few strides later, so that other tiles have other parts of each pixel's view."""
    rows = [_row(name, binding, folder) for name in networks]
    return {"passed": all(row["bits that differ"] == 0 for row in rows), "rows": rows}


def _row(name: str, binding: Binding, folder: Path) -> dict[str, Any]:
    deployed = model(name, folder, output="raw")
    image, axis = picture(name, *sizes().exactness), deployed.contract.geometry.y
    side = tile_side(deployed.contract)
    way = Way(name="tiles", plan="tile", tile=(side, side))
    with gpu_session(deployed, binding) as session:
        base, again = run(session, image, way), run(session, image, way)
        pixels, different, largest = 0, int(np.count_nonzero(base != again)), 0.0
        for down, right in _offsets(deployed):
            moved = run(session, np.ascontiguousarray(image[down:, right:]), way)
            # Beyond a halo from its upper and left edge, the smaller image's pixels see what the larger one's see.
            inner = np.s_[:, axis.margin_before :, axis.margin_before :]
            one, other = moved[inner], base[:, down:, right:][inner]
            pixels += one[0].size
            different += int(np.count_nonzero(one != other))
            largest = max(largest, largest_difference(one, other))
    return {
        "network": name,
        "tile": side,
        "pixels compared": pixels,
        "differ when run again": int(np.count_nonzero(base != again)),
        "bits that differ": different,
        "max abs": largest,
    }


def _offsets(deployed: DeployedModel) -> list[Offset]:
    stride = deployed.contract.geometry.y.stride
    return [(stride, 2 * stride), (3 * stride, stride)]
