"""Measure which rows of an image change a box of the output, by changing them.

As in other runs along one axis, the words say rows; for the x axis they are columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile_converters.plain_runs.dependency import Lane, Runs, first_true, noise

BACKGROUNDS = (1.0, 100.0)
"""Amplitudes of the noise images that are changed: networks expect 0 to 1, or 0 to 255."""


class Changes:
    """Images along ``lane``, generated from ``seed``, and the network's results for them."""

    def __init__(self, subject: Runs, lane: Lane, seed: int) -> None:
        self._subject, self._lane = subject, lane
        generator, shape = np.random.default_rng(seed), (lane.size, lane.breadth, subject.channels)
        self._tried: list[tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...]]] = []
        for size in BACKGROUNDS if subject.dtype.kind == "f" else BACKGROUNDS[:1]:
            image = noise(generator, shape, subject.dtype, size)
            others = (noise(generator, shape, subject.dtype, BACKGROUNDS[-1]), np.zeros_like(image))
            self._tried.append((image, self._box(image), others))

    def show(self, rows: slice) -> bool:
        """Return whether other values of ``rows`` change anything in the lane's box of the output."""
        for image, base, others in self._tried:
            for other in others:
                changed = image.copy()
                changed[rows] = other[rows]
                if not np.array_equal(self._box(changed), base, equal_nan=True):
                    return True
        return False

    def beyond(self, near: int) -> bool:
        """Return whether rows more than ``near`` away from the lane's box change it."""
        box = self._lane.box
        return self.show(slice(0, max(0, box.start - near))) or self.show(slice(box.stop + near, None))

    def reach(self, near: int) -> tuple[int, int]:
        """Return the farthest rows before and after the box that change it, at most ``near``."""
        lane, box = self._lane, self._lane.box
        head = first_true(box.start - near, box.stop, lambda stop: self.show(slice(0, stop)))
        least = lane.size - box.stop - near
        tail = first_true(least, lane.size - box.start, lambda rows: self.show(slice(lane.size - rows, lane.size)))
        return max(0, box.start - head + 1), max(0, lane.size - tail + 1 - box.stop)

    def _box(self, image: NDArray[Any]) -> NDArray[Any]:
        return self._lane.run(self._subject, image)[:, self._lane.output_box]
