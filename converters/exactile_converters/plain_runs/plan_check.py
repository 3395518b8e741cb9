"""Compare the runtime's tiles and strips with one pass of plain ONNX Runtime, on noise of small sizes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import BudgetError, ExactileError
from exactile.planning import PlanName
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.plain_runs.bounded import Bounded
from exactile_converters.plain_runs.dependency import noise
from exactile_converters.plain_runs.difference import compare

Array = NDArray[Any]

SCALES = (1.0, 100.0)
"""Amplitudes of the noise; the one to which the output responds more is used. Networks expect 0 to 1, or 0 to 255."""

NUDGE = 0.01
"""Change of an image, as a share of the noise, that shows how the output responds."""

STEPPING = frozenset(
    "QuantizeLinear DynamicQuantizeLinear Round Floor Ceil Sign Greater GreaterOrEqual Less LessOrEqual Equal ArgMax "
    "ArgMin TopK Hardmax Mod Where Cast".split()
)
"""Operators that can turn the last digit of their input into another value."""

STEP_TOLERANCE = 0.02
"""Largest effect of such a step, relative to the largest value. A wrong halo or a lost row changes more."""

STEP_SHARE = 1e-3
"""Share of values that may differ by more, where two scores are nearly equal."""

SEEDS = (2, 3)
"""A difference usually counts if both images show one: chance does not repeat itself."""


class PlanCheck:
    """``model`` in tiles and strips against ``network``; ``stepping``: the network has operators of STEPPING.

    Images are generated from ``seeds``; a difference counts if all show one or, with ``every``, if one does.
    ``max_abs`` is the largest difference attributed to rounding, ``largest`` the largest value compared; ``reacts``
    becomes true when the outputs of two images differ.
    """

    def __init__(
        self,
        model: DeployedModel,
        network: Bounded,
        *,
        stepping: bool,
        seeds: Sequence[int] = SEEDS,
        every: bool = False,
    ) -> None:
        self._model, self._network, self._stepping = model, network, stepping
        self._seeds, self._every = seeds, every
        self.max_abs = self.largest = 0.0
        self.reacts = False

    def difference(self, plan: PlanName, size: tuple[int, int], shape: tuple[int, int]) -> str:
        """Return how ``plan`` with tiles or strips of ``shape`` differs from one pass over ``size``; empty where it
        does not.

        Raises TooLargeError and BudgetError.
        """
        found = ""
        for seed in self._seeds:
            found = self._difference(plan, self._image(size, seed), shape)
            if bool(found) == self._every:
                break
        return found

    def _image(self, size: tuple[int, int], seed: int) -> Array:
        """Return (H, W, C) of the noise whose changes most of the output's values follow."""
        dtype = np.dtype(self._model.contract.image.dtype)
        shape = (*size, self._network.channels)
        generator = np.random.default_rng(seed)
        found = []
        for scale in SCALES if dtype.kind == "f" else SCALES[:1]:
            image, other = (noise(generator, shape, dtype, scale) for _ in range(2))
            nearby = image + (other - image) * dtype.type(NUDGE) if dtype.kind == "f" else other
            found.append((self._answer(image, nearby), image))
        answer, image = max(found, key=lambda pair: pair[0])
        self.reacts = self.reacts or answer > (0.0, 0.0)
        return image

    def _answer(self, image: Array, other: Array) -> tuple[float, float]:
        """Return the median and the root mean square of the output's changes, relative to its largest value."""
        with np.errstate(all="ignore"):
            one, two = (self._run(given).astype(np.float64) for given in (image, other))
            gap = np.abs(one - two) / np.abs(one[np.isfinite(one)]).max(initial=0.0)
        gap = np.where(np.isfinite(gap), gap, 0.0)
        return float(np.median(gap)), float(np.sqrt(np.mean(gap**2)))

    def _run(self, image: Array) -> Array:
        return self._network.run(image.astype(self._network.dtype))

    def _difference(self, plan: PlanName, image: Array, shape: tuple[int, int]) -> str:
        whole, sink = self._run(image), ArraySink()
        pieces = "strips" if plan == "strip" else "tiles"
        where = f"{pieces} of {shape[0]} x {shape[1]} over {image.shape[0]} x {image.shape[1]} pixels"
        try:
            with closing(Session(self._model, device="cpu")) as session:
                session.segment(ArraySource(image), sink, plan=plan, tile=shape)
        except BudgetError:
            raise
        except ExactileError as error:
            return f"{where} fail: {error}"
        result = sink.result.astype(whole.dtype) if whole.dtype.kind != "f" else sink.result
        if result.shape != whole.shape:
            return f"{where} give {_size(result)}, one pass gives {_size(whole)}"
        difference = compare(result, whole, probability=False)
        largest = float(np.abs(whole[np.isfinite(whole)].astype(np.float64)).max(initial=0.0))
        if difference.first is None or self._is_step(result, whole, largest):
            self.max_abs, self.largest = max((self.max_abs, self.largest), (difference.max_abs, largest))
            return ""
        y, x = difference.first
        return (
            f"{where} differ from one pass by up to {difference.max_abs:.3g} (values up to {largest:.3g}), "
            f"first at row {y}, column {x}"
        )

    def _is_step(self, result: Array, whole: Array, largest: float) -> bool:
        """Return whether it differs as a network does where the last digit decides between two values."""
        if not self._stepping:
            return False
        with np.errstate(invalid="ignore"):
            gap = np.abs(result.astype(np.float64) - whole.astype(np.float64))
        same = (gap <= STEP_TOLERANCE * largest) | (result == whole) | (np.isnan(result) & np.isnan(whole))
        return float(np.mean(~same)) <= STEP_SHARE


def _size(array: Array) -> str:
    return " x ".join(map(str, array.shape))
