"""Compare one way to run a network in the runtime with one pass of plain ONNX Runtime, and with float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile_converters.plain_runs.difference import Difference, labels, margins
from exactile_converters.verify.double import NoDoubleError
from exactile_converters.verify.pixels import Pixels

Array = NDArray[Any]

ALLOWED_FACTOR = 1.5
"""Allowed error against float64, relative to that of one pass in float32: the order of summation may differ."""

ALLOWED_ROUNDING = 2
"""Additional allowed units in the last place of the largest value, since a pass may happen to be right in all
digits."""

LARGEST_ROUNDING = 1 << 14
"""Units in the last place of the largest value: a pass that is farther from float64 does not compute the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubleError:
    """Errors against a pass in float64, of this way and of ``one_pass`` in the network's own type.

    ``allowed`` is the largest accepted ``max_abs``. ``other_labels`` are labels that differ from one pass where the two
    best scores in float64 differ by more than twice that.
    """

    max_abs: float
    rmse: float
    one_pass_max_abs: float
    one_pass_rmse: float
    allowed: float
    other_labels: int

    @property
    def holds(self) -> bool:
        return self.max_abs <= self.allowed and not self.other_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of ``plan`` on ``pixels``, in ``tiles`` (or strips) of ``tile``, (height, width).

    A network with statistics of the whole image ran in passes of ``pass_tiles`` before, over ``kept_maps`` or over the
    image; ``float64`` is None where there is no such pass.
    """

    pixels: Pixels
    tile: tuple[int, int]
    tiles: int
    output_shape: tuple[int, ...]
    difference: Difference
    plan: str = "tile"
    kept_maps: bool = False
    pass_tiles: tuple[int, ...] = ()
    float64: DoubleError | None = None

    @property
    def holds(self) -> bool:
        """Return whether it holds, by the error against float64 if known: one pass in float32 is no more accurate."""
        return self.difference.holds if self.float64 is None else self.float64.holds


def against_double(found: Array, whole: Array, exact: Array, *, probability: bool) -> DoubleError:
    """Compare (C, H, W) ``found`` and ``whole``, one pass in the network's own type, with ``exact``, in float64.

    Raises NoDoubleError where ``exact`` is not what ``whole`` is up to rounding.
    """
    if exact.shape != whole.shape:
        raise NoDoubleError(f"the pass in float64 gives a map of {exact.shape}, and ONNX Runtime one of {whole.shape}")
    largest = float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0))
    unit = float(np.finfo(whole.dtype).eps) * largest if whole.dtype.kind == "f" else 0.0
    ours, theirs = _errors(found, exact), _errors(whole, exact)
    if theirs.max(initial=0.0) > LARGEST_ROUNDING * unit:
        raise NoDoubleError(
            f"one pass of ONNX Runtime differs from the pass in float64 by up to {theirs.max():.3g} (values up to "
            f"{largest:.3g}), which is no rounding"
        )
    allowed = ALLOWED_FACTOR * float(theirs.max(initial=0.0)) + ALLOWED_ROUNDING * unit
    threshold = 0.5 if probability else 0.0
    wrong = labels(found, threshold) != labels(whole, threshold)
    return DoubleError(
        max_abs=float(ours.max(initial=0.0)),
        rmse=float(np.sqrt(np.mean(ours**2))),
        one_pass_max_abs=float(theirs.max(initial=0.0)),
        one_pass_rmse=float(np.sqrt(np.mean(theirs**2))),
        allowed=allowed,
        other_labels=int((wrong & (margins(exact, threshold) > 2 * allowed)).sum()),
    )


def _errors(found: Array, exact: Array) -> Array:
    with np.errstate(invalid="ignore"):
        gap = np.abs(found.astype(np.float64) - exact)
    same = (found == exact) | (np.isnan(found) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isfinite(gap), gap, np.inf))
