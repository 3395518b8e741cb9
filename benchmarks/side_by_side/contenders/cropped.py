"""Tiles written by hand: read the image, run each tile, cut its halo away, keep labels.

With a halo of 0 these are naive tiles. With 96 they are those of Majurski & Bajcsy (2021) for this network, whose
formula gives 92, rounded up to the stride of 16: no halo at the image's edges, so that edge tiles are smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from benchmarks.side_by_side.contenders.in_memory import classes, normalized, read_image, write_labels
from benchmarks.side_by_side.contenders.predictors import open_predictor
from benchmarks.side_by_side.task import Labels, Scores, Task, Tiling

Cut = tuple[slice, slice]


class Contender:
    """Options: ``tile``, the side of the network's input, and ``halo``."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.tiling = Tiling()
        self.predict = open_predictor(task)
        self.halo = task.options.get("halo", 0)
        self.zone = task.options["tile"] - 2 * self.halo

    def segment(self) -> float:
        image = read_image(self.task)
        labels = np.empty(image.shape[:2], np.uint8)
        for zone, scores in self._zones(image):
            labels[zone] = scores.argmax(axis=0)
        write_labels(self.task, labels)
        return 0.0

    def score(self) -> Scores:
        image = read_image(self.task)
        whole = np.empty((classes(self.task), *image.shape[:2]), np.float32)
        for zone, scores in self._zones(image):
            whole[:, *zone] = scores
        return whole

    def _zones(self, image: Labels) -> Iterator[tuple[Cut, Scores]]:
        height, width = image.shape[:2]
        self.tiling = Tiling(seams_y=[*range(0, height, self.zone)], seams_x=[*range(0, width, self.zone)])
        for y, x in product(self.tiling.seams_y, self.tiling.seams_x):
            zone = slice(y, min(height, y + self.zone)), slice(x, min(width, x + self.zone))
            top, left = max(0, y - self.halo), max(0, x - self.halo)
            tile = image[top : zone[0].stop + self.halo, left : zone[1].stop + self.halo]
            self.tiling.computed_px += tile.shape[0] * tile.shape[1]
            scores = self.predict(normalized(tile)[None])[0]
            yield zone, scores[:, y - top : zone[0].stop - top, x - left : zone[1].stop - left]
