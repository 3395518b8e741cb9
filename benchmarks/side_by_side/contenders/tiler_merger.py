"""tiler: Tiler cuts tiles, Merger adds them up, weighted by a window function.

Its documentation shows ``overlap`` with a window such as ``hann``, and the U-Net paper's ``overlap-tile``: the image
padded by reflection with ``calculate_padding``, only the middle of each tile kept. As exact as it goes: no padding, a
window of next to nothing at the tile's edges, and ``irregular`` tiles at the end, which are not padded either.
"""

from __future__ import annotations

import numpy as np
from tiler import Merger, Tiler

from benchmarks.side_by_side.contenders.in_memory import InMemory, classes
from benchmarks.side_by_side.contenders.predictors import open_predictor
from benchmarks.side_by_side.contenders.weights import nearly_zero_edges
from benchmarks.side_by_side.task import Scores, Task


class Contender(InMemory):
    """Options: ``tile``, ``overlap`` in pixels, ``window``: a name, ``overlap-tile``, or ``exact`` with ``halo``."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.predict = open_predictor(task)

    def scores_of(self, image: Scores) -> Scores:
        options = self.task.options
        exact = options["window"] == "exact"
        tiler = Tiler(
            data_shape=image.shape,
            tile_shape=(image.shape[0], options["tile"], options["tile"]),
            overlap=(0, options["overlap"], options["overlap"]),
            channel_dimension=0,
            mode="irregular" if exact else "reflect",
        )
        padding = None
        if options["window"] == "overlap-tile":
            shape, padding = tiler.calculate_padding()
            tiler.recalculate(data_shape=shape)
            image = np.pad(image, padding, mode="reflect")
        self._note(tiler, padding)
        window = nearly_zero_edges(options["tile"], options["halo"])[None] if exact else options["window"]
        return self._merged(tiler, image, window, padding)

    def _merged(self, tiler: Tiler, image: Scores, window, padding) -> Scores:
        kinds = classes(self.task)
        merger_tiler = Tiler(
            data_shape=(kinds, *tiler.data_shape[1:]),
            tile_shape=(kinds, *tiler.tile_shape[1:]),
            overlap=(0, self.task.options["overlap"], self.task.options["overlap"]),
            channel_dimension=0,
            mode=tiler.mode,
        )
        if isinstance(window, np.ndarray):
            window = np.repeat(window, kinds, axis=0)
        merger = Merger(merger_tiler, window=window, save_visits=False)
        for number, tile in tiler(image):
            merger.add(number, self.predict(tile[None])[0])
        extra = [(0, 0), *padding[1:]] if padding else None
        return merger.merge(extra_padding=extra, dtype=np.float32)

    def _note(self, tiler: Tiler, padding) -> None:
        corners = [tiler.get_tile_bbox(number, with_channel_dim=True) for number in range(len(tiler))]
        before = [int(pad[0]) for pad in padding[1:]] if padding else [0, 0]
        starts = [sorted({int(start[axis + 1]) - before[axis] for start, _ in corners}) for axis in (0, 1)]
        self.saw_windows(*starts, int(tiler.tile_shape[1]), int(tiler.tile_shape[2]))
