"""torch_em's predict_with_halo: blocks with a halo, padded by reflection at the image's edges, halo cut away.

Its default standardises every block by itself; here each is divided by 255, as the network wants, the same for all.
"""

from __future__ import annotations

import numpy as np
import torch

# torch_em imports torchvision, whose compiled half is missing beside a CPU build of torch: declare it, unused.
OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torch_em.util.prediction import predict_with_halo

from benchmarks.side_by_side.contenders.in_memory import InMemory, classes
from benchmarks.side_by_side.contenders.predictors import TorchPredictor
from benchmarks.side_by_side.task import Scores, Task


class Contender(InMemory):
    """Options: ``block``, ``halo``."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.module = TorchPredictor(task).module

    def scores_of(self, image: Scores) -> Scores:
        block, halo = self.task.options["block"], self.task.options["halo"]
        output = np.empty((classes(self.task), *image.shape[1:]), np.float32)
        predict_with_halo(
            image,
            self.module,
            gpu_ids=["cpu"],
            block_shape=(block, block),
            halo=(halo, halo),
            output=output,
            preprocess=None,
            with_channels=True,
            disable_tqdm=True,
        )
        self.tiling.seams_y, self.tiling.seams_x = ([*range(0, size, block)] for size in image.shape[1:])
        self.tiling.computed_px = len(self.tiling.seams_y) * len(self.tiling.seams_x) * (block + 2 * halo) ** 2
        return output
