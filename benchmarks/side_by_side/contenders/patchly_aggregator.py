"""patchly: GridSampler gives patches, Aggregator averages them, evenly or by a Gaussian.

By default (``SAMPLE_SQUEEZE``) patches are moved closer together so that the last ends with the image, which takes them
off the network's stride. As exact as it goes: ``SAMPLE_EDGE``, which moves only the last patch, and weights of
next to nothing at a patch's edges.
"""

from __future__ import annotations

import numpy as np
from patchly.aggregator import Aggregator
from patchly.array_like import create_array_like
from patchly.sampler import GridSampler, SamplingMode

from benchmarks.side_by_side.contenders.in_memory import InMemory, classes
from benchmarks.side_by_side.contenders.predictors import open_predictor
from benchmarks.side_by_side.contenders.weights import nearly_zero_edges
from benchmarks.side_by_side.task import Scores, Task


class Contender(InMemory):
    """Options: ``patch``, ``step``, ``weights``: ``avg``, ``gaussian``, or ``exact`` with ``halo``."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.predict = open_predictor(task)

    def scores_of(self, image: Scores) -> Scores:
        options = self.task.options
        patch, step = options["patch"], options["step"]
        exact = options["weights"] == "exact"
        sampler = GridSampler(
            image=image,
            spatial_size=image.shape[1:],
            patch_size=(patch, patch),
            step_size=(step, step),
            spatial_first=False,
            mode=SamplingMode.SAMPLE_EDGE if exact else SamplingMode.SAMPLE_SQUEEZE,
        )
        weights = options["weights"]
        if exact:
            weights = create_array_like(np.ndarray, nearly_zero_edges(patch, options["halo"]), "cpu")
        aggregator = Aggregator(
            sampler=sampler, output_size=(classes(self.task), *image.shape[1:]), weights=weights, spatial_first=False
        )
        boxes = []
        for pixels, box in sampler:
            boxes.append(box)
            aggregator.append(self.predict(pixels[None])[0], box)
        starts = [sorted({int(box[axis][0]) for box in boxes}) for axis in (0, 1)]
        self.saw_windows(*starts, patch, patch)
        return np.asarray(aggregator.get_output(inplace=True), np.float32)
