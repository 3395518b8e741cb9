"""What nearly every script does: the image in memory, scores of the whole image in memory, labels in one call."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.side_by_side.task import Labels, Scores, Task, Tiling


def read_image(task: Task) -> NDArray[np.uint8]:
    """Return (H, W, C) uint8; tifffile decodes in threads."""
    return tifffile.imread(task.image, maxworkers=task.threads)


def normalized(pixels: NDArray[np.uint8]) -> Scores:
    """Convert (H, W, C) uint8 -> (C, H, W) float32 between 0 and 1, as the network expects."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def write_labels(task: Task, labels: Labels) -> None:
    """Write the same kind of file as exactile."""
    tifffile.imwrite(
        task.output, labels, bigtiff=True, tile=(512, 512), compression="zlib", photometric="minisblack",
        maxworkers=task.threads,
    )  # fmt: skip


def classes(task: Task) -> int:
    return json.loads((task.network / "network.json").read_text())["classes"]


class InMemory(ABC):
    """A contender that has all scores before it takes labels."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.tiling = Tiling()

    @abstractmethod
    def scores_of(self, image: Scores) -> Scores:
        """Compute (C, H, W) between 0 and 1 -> (K, H, W)."""

    def score(self) -> Scores:
        return self.scores_of(normalized(read_image(self.task)))

    def segment(self) -> float:
        write_labels(self.task, self.score().argmax(axis=0).astype(np.uint8))
        return 0.0

    def saw_windows(self, starts_y: list[int], starts_x: list[int], height: int, width: int) -> None:
        """Note windows of one size: their edges are where seams may lie."""
        self.tiling.seams_y = sorted({edge for start in starts_y for edge in (start, start + height)})
        self.tiling.seams_x = sorted({edge for start in starts_x for edge in (start, start + width)})
        self.tiling.computed_px = len(starts_y) * len(starts_x) * height * width
