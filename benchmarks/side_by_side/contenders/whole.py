"""One pass over the whole image: what everyone should give, as long as memory lasts."""

from __future__ import annotations

from benchmarks.side_by_side.contenders.in_memory import InMemory
from benchmarks.side_by_side.contenders.predictors import open_predictor
from benchmarks.side_by_side.task import Scores, Task


class Contender(InMemory):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.predict = open_predictor(task)

    def scores_of(self, image: Scores) -> Scores:
        self.tiling.computed_px = image.shape[1] * image.shape[2]
        return self.predict(image[None])[0]
