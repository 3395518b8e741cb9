"""The carries of one band, from strip to strip."""

from __future__ import annotations

import numpy as np

from exactile.contract import StripModel
from exactile.errors import EngineError


class CarryPair:
    """Two sets of carries of one band, used alternately: a strip reads ``current`` and writes ``next``."""

    def __init__(self, strips: StripModel, width: int) -> None:
        try:
            self.current, self.next = (
                {carry.name: np.empty(carry.shape_at(width), carry.dtype) for carry in strips.carries} for _ in range(2)
            )
        except MemoryError as error:
            raise EngineError("out of memory while making the carries; use a smaller --memory") from error

    def swap(self) -> None:
        self.current, self.next = self.next, self.current
