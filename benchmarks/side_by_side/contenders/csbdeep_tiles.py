"""CSBDeep's tile_iterator (StarDist's, too): tiles on the network's stride, moved inward at the image's edges.

``block_sizes`` is the stride, ``n_block_overlaps`` the halo in strides, which StarDist finds by poking the network.
"""

from __future__ import annotations

import numpy as np
from csbdeep.internals.predict import tile_iterator

from benchmarks.side_by_side.contenders.in_memory import InMemory, classes
from benchmarks.side_by_side.contenders.predictors import open_predictor
from benchmarks.side_by_side.task import Scores, Task


class Contender(InMemory):
    """Options: ``tile``, about its side; ``stride``, ``halo``."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.predict = open_predictor(task)

    def scores_of(self, image: Scores) -> Scores:
        options = self.task.options
        stride, overlap = options["stride"], options["halo"] // options["stride"]
        tiles = [max(1, round(size / (options["tile"] - 2 * options["halo"]))) for size in image.shape[1:]]
        scores = np.empty((classes(self.task), *image.shape[1:]), np.float32)
        starts: tuple[set[int], set[int]] = (set(), set())
        for tile, source, target in tile_iterator(
            image, (1, *tiles), (image.shape[0], stride, stride), (0, overlap, overlap)
        ):
            scores[:, *target[1:]] = self.predict(tile[None])[0][:, *source[1:]]
            self.tiling.computed_px += tile.shape[1] * tile.shape[2]
            for found, where in zip(starts, target[1:], strict=True):
                found.add(where.start)
        self.tiling.seams_y, self.tiling.seams_x = (sorted(found) for found in starts)
        return scores
