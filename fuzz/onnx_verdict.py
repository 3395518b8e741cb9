"""Judge what exactile makes of a damaged model, by one pass of plain ONNX Runtime over the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exactile.errors import ExactileError, OptionError
from exactile.geometry import AxisGeometry, Geometry
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import load_network
from fuzz.outcome import Outcome, judge_message
from tests.support.oracle import whole_pass

NAME = "case.onnx"
LARGEST_SIDE = 400
BUDGET_BYTES = 1 << 30
MOST_CHANNELS = 16
TOLERANCE = 1e-3

_NO_REFERENCE = (
    "invalid dimensions",
    "ShapeInferenceError",
    "External data",
    "NOT_IMPLEMENTED",
    "same node name",
    "Non concat axis",
    "Invalid tensor data type",
    "Type 'optional(",
    "Type 'seq(",
    "Op (QLinearAveragePool) [TypeInferenceError]",
    "of operator (Loop)",
    "of operator (SequenceAt)",
)
"""What plain ONNX Runtime refuses and exactile mends: declared sizes that contradict the weights, data beside the
model, operators older than any that it implements, names given twice, parts beside the result that take other sizes or
have no type, a last input that is left out by an empty name, types of loops and sequences that are written out."""


def read_case(path: Path) -> Outcome | tuple[Geometry, int]:
    """Return the geometry or obstacles of the graph; or the outcome, if there are none."""
    try:
        network = load_network(path)
        traced = network.trace()
    except ExactileError as error:
        return judge_message(str(error), path.name)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"reading: {type(error).__name__}: {str(error)[:300]}")
    if traced.geometry is None:
        return Outcome(verdict="right", detail="obstacles" if traced.obstacles else "neither geometry nor obstacle")
    return traced.geometry, network.channels


def run_case(path: Path, geometry: Geometry, channels: int) -> Outcome | tuple[np.ndarray, np.ndarray]:
    """Return the image and the result of tiles; or the outcome."""
    sides = [_sides(axis) for axis in (geometry.y, geometry.x)]
    if None in sides or channels > MOST_CHANNELS:
        return Outcome(verdict="right", detail="tileable, too large to be run here")
    (height, tile_height), (width, tile_width) = sides  # type: ignore[misc]
    image = np.random.default_rng(0).integers(0, 8, (height, width, channels), dtype=np.uint8)
    try:
        as_stored = Normalization()
        model = deploy(load_network(path), image_dtype="uint8", normalization=as_stored, output="raw", strips=False)
        session, sink = Session(model, memory_bytes=BUDGET_BYTES, threads=1), ArraySink()
        session.segment(ArraySource(image), sink, plan="tile", tile=(tile_height, tile_width))
    except OptionError as error:
        return judge_message(str(error), "")
    except ExactileError as error:
        return judge_message(str(error), "")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"running: {type(error).__name__}: {str(error)[:300]}")
    return image, sink.result


def _sides(axis: AxisGeometry) -> tuple[int, int] | None:
    """Return pixels of an image and of a smaller tile; None when they are too many."""
    margins = max(0, axis.margin_before) + max(0, axis.margin_after)
    if margins + 8 * axis.stride > LARGEST_SIDE:
        return None
    return axis.accepted_size(margins + 6 * axis.stride), axis.accepted_size(margins + 3 * axis.stride)


def judge(path: Path, geometry: Geometry, image: np.ndarray, found: np.ndarray) -> Outcome:
    """Compare with plain ONNX Runtime."""
    try:
        expected = whole_pass(path.read_bytes(), image, geometry)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime refuses what ours ran
        if any(text in str(error) for text in _NO_REFERENCE):
            return Outcome(verdict="right", detail="run; one pass is refused for its declared sizes")
        return Outcome(verdict="failure", detail=f"run, but plain ONNX Runtime raises {str(error)[:200]}")
    if found.shape != expected.shape:
        return Outcome(verdict="failure", detail=f"result {found.shape}, but one pass gives {expected.shape}")
    finite = np.abs(expected[np.isfinite(expected)])
    largest = float(finite.max(initial=0))
    if largest > 1e30 or finite.size < expected.size:
        return Outcome(verdict="right", detail="its numbers overflow")
    if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * largest, equal_nan=True):
        worst = float(np.nanmax(np.abs(found - expected)))
        return Outcome(verdict="failure", detail=f"tiles differ from one pass by {worst:g} at values to {largest:g}")
    return Outcome(verdict="right")
