"""What a contender is asked and what it answers; plain data, so that it goes from process to process as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
Scores = NDArray[np.float32]
"""(C, H, W)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """``network`` is a folder that ``subject.py`` wrote; ``scores`` is where scores go in a pass that is not timed."""

    network: Path
    image: Path
    output: Path
    threads: int
    options: dict[str, Any] = field(default_factory=dict)
    scores: Path | None = None


@dataclass(slots=True, kw_only=True)
class Tiling:
    """Where seams may lie: pixels at which a tile's or a window's share begins or ends; what was computed."""

    seams_y: list[int] = field(default_factory=list)
    seams_x: list[int] = field(default_factory=list)
    computed_px: int = 0


class Contender(Protocol):
    """Made with a Task: the constructor opens the network. A module in ``contenders`` has one, named ``Contender``."""

    tiling: Tiling

    def segment(self) -> float:
        """Run image file to label TIFF; return seconds of it that opened the network, if that cannot be done before."""

    def score(self) -> Scores:
        """Return the scores that ``segment`` takes its labels from."""
