"""MONAI's SlidingWindowInferer: windows that overlap by a share, blended with equal or Gaussian weights.

Its defaults are ``overlap=0.25, mode="constant"``; its documentation and the nnU-Net recipe use ``overlap=0.5,
mode="gaussian"``. As exact as it goes: windows that overlap by two halos (which keeps them on the stride) and
``roi_weight_map``, a weight of next to nothing within a halo of a window's edge.
"""

from __future__ import annotations

import torch
from monai.inferers import SlidingWindowInferer, sliding_window_inference

from benchmarks.side_by_side.contenders.in_memory import InMemory
from benchmarks.side_by_side.contenders.predictors import open_module, open_predictor
from benchmarks.side_by_side.contenders.weights import nearly_zero_edges
from benchmarks.side_by_side.task import Scores, Task


class Contender(InMemory):
    """Options: ``window``, ``overlap`` (a share), ``mode``; ``halo`` for the weight map; ``library``."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.set_num_threads(task.threads)
        if task.options.get("library") == "torch":
            self.predict = open_module(task)
        else:
            run = open_predictor(task)
            self.predict = lambda window: torch.from_numpy(run(window.numpy()))
        self.window = task.options["window"]

    def scores_of(self, image: Scores) -> Scores:
        options = self.task.options
        self._note_windows(image.shape[1:], options["overlap"])
        batch = torch.from_numpy(image)[None]
        side = (self.window, self.window)
        with torch.inference_mode():
            if "halo" in options:
                weights = torch.from_numpy(nearly_zero_edges(self.window, options["halo"]))
                found = sliding_window_inference(
                    batch, side, 1, self.predict, overlap=options["overlap"], roi_weight_map=weights
                )
            else:
                inferer = SlidingWindowInferer(side, sw_batch_size=1, overlap=options["overlap"], mode=options["mode"])
                found = inferer(batch, self.predict)
        return found[0].numpy()

    def _note_windows(self, shape: tuple[int, ...], overlap: float) -> None:
        step = int(self.window * (1 - overlap))
        starts = [sorted({*range(0, size - self.window, step), size - self.window}) for size in shape]
        self.saw_windows(*starts, self.window, self.window)
