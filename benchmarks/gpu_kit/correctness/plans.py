"""Every plan of a network on the GPU: against the CPU, against one pass on the GPU, and against itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_kit.correctness.reference import Reference, reference
from benchmarks.gpu_kit.network_names import is_integer
from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import Picture, picture
from benchmarks.gpu_kit.provider import Binding, gpu_session
from benchmarks.gpu_kit.sizes import sizes
from exactile.contract import Contract, DeployedModel
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

Result = NDArray[Any]
ONE_PASS, STREAM = "one pass", "stream of rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A plan and its shape; ``tile`` as for ``Session.segment``."""

    name: str
    plan: str
    tile: tuple[int, int] | None = None


def ways(deployed: DeployedModel, width: int) -> list[Way]:
    """Return the ways of a network for images of ``width`` pixels. Tiles come twice: are they the same each time?"""
    side, rows = tile_side(deployed.contract), sizes().rows
    found = [Way(name=ONE_PASS, plan="whole"), Way(name="tiles", plan="tile", tile=(side, side))]
    found.append(Way(name="tiles again", plan="tile", tile=(side, side)))
    if deployed.strips is not None:
        found.append(Way(name="strips", plan="strip", tile=(rows, width)))
        found.append(Way(name="bands", plan="strip", tile=(rows, side)))
        if not deployed.levels:  # rows that are still to come would be part of their statistics
            found.append(Way(name=STREAM, plan="stream", tile=(rows, width)))
    return found


def tile_side(contract: Contract) -> int:
    axis = contract.geometry.y
    return axis.accepted_size(axis.margin_before + axis.margin_after + axis.stride + sizes().advance)


def against_cpu(networks: Sequence[str], binding: Binding, folder: Path) -> dict[str, Any]:
    """Return a check: raw maps and labels of every plan. Passed: only rounding differs; integer networks, not a bit."""
    rows = [row for name in networks for row in rows_of(name, binding, folder)]
    return {"passed": all(row["right"] for row in rows), "rows": rows}


def rows_of(name: str, binding: Binding, folder: Path) -> list[dict[str, Any]]:
    image = picture(name, *sizes().exactness)
    expected = reference(name, image, folder)
    maps, seconds = results(model(name, folder, output="raw"), binding, image)
    labels = {} if is_integer(name) else results(model(name, folder), binding, image)[0]
    return [
        {"network": name, "binding": binding, "plan": way, **compared(name, way, maps, labels, expected)}
        | {"seconds": round(seconds[way], 3)}
        for way in maps
    ]


def results(deployed: DeployedModel, binding: Binding, image: Picture) -> tuple[dict[str, Result], dict[str, float]]:
    """Return the result of every way, and the seconds that it took, by name."""
    found, seconds = {}, {}
    with gpu_session(deployed, binding) as session:
        for way in ways(deployed, image.shape[1]):
            begin = time.perf_counter()
            found[way.name] = run(session, image, way)
            seconds[way.name] = time.perf_counter() - begin
    return found, seconds


def run(session: Session, image: Picture, way: Way) -> Result:
    if way.plan == "stream":
        return streamed(session, image, way)
    sink = ArraySink()
    session.segment(ArraySource(image), sink, plan=way.plan, tile=way.tile)
    return sink.result


def streamed(session: Session, image: Picture, way: Way) -> Result:
    """Return rows that arrive, an odd number at a time."""
    assert way.tile is not None
    pieces, step = [], way.tile[0] // 2 + 3
    with session.stream(width=image.shape[1], dtype=image.dtype, rows=way.tile[0]) as stream:
        for start in range(0, len(image), step):
            pieces += stream.push(image[start : start + step])
        pieces += stream.close()
    return np.concatenate([piece for _, piece in pieces], axis=-2)


def compared(
    name: str, way: str, maps: dict[str, Result], labels: dict[str, Result], expected: Reference
) -> dict[str, Any]:
    """Return differences of one way: from the CPU, and from one pass on the GPU."""
    off = largest_difference(maps[way], expected.maps)
    row: dict[str, Any] = {
        "max abs, CPU": off,
        "of the range": off / float(np.ptp(expected.maps)),
        "max abs, one pass": largest_difference(maps[way], maps[ONE_PASS]),
    }
    if is_integer(name):
        return row | {"right": off == 0}
    different = labels[way] != expected.labels
    margin = expected.margin(different)
    row |= {
        "labels, CPU": int(np.count_nonzero(different)),
        "largest margin": margin,
        "labels, one pass": int(np.count_nonzero(labels[way] != labels[ONE_PASS])),
    }
    return row | {"right": off <= expected.tolerance and margin <= 2 * expected.tolerance}


def largest_difference(one: Result, other: Result) -> float:
    """Raise ValueError where shapes differ; a NaN in either is infinitely far."""
    if one.shape != other.shape:
        raise ValueError(f"shapes {one.shape} and {other.shape} differ")
    found = float(np.abs(one.astype(np.float64) - other).max())
    return found if found == found else float("inf")  # NaN
