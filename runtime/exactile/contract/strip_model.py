"""How a network takes an image in strips: its graphs, and the rows that each strip hands to the next."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exactile.contract.memory_model import MemoryModel

StripRole = Literal["first", "body", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Rows of the feature map ``of`` that each strip hands to the next: graph input ``NAME_in``, output ``NAME_out``.

    ``shape`` has None where columns are: as many as ``width * width_scale + width_constant``; in the graphs this
    dimension is named ``width_name``.
    """

    name: str
    of: str
    dtype: str
    shape: tuple[int | None, ...]
    width_scale: Fraction
    width_constant: Fraction

    @property
    def width_name(self) -> str:
        return f"{self.name}_width"

    def columns_at(self, width: int) -> int:
        """Return columns for strips of ``width`` image columns, an accepted width."""
        return int(width * self.width_scale + self.width_constant)

    def shape_at(self, width: int) -> tuple[int, ...]:
        """Return the shape for strips of ``width`` image columns, an accepted width."""
        columns = self.columns_at(width)
        return tuple(columns if size is None else size for size in self.shape)

    def bytes_at(self, width: int) -> int:
        return math.prod(self.shape_at(width)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class StripGraph:
    """One of the three graphs of a strip plan, and the memory of one run of it.

    Dimensions ``height`` and ``width`` of the image are symbolic. Weights are outside: ``StripModel.weights``.
    """

    graph: bytes
    memory: MemoryModel


@dataclass(frozen=True, slots=True, kw_only=True)
class StripModel:
    """How a network takes an image in strips, top to bottom.

    The ``first`` strip is at least ``startup_rows`` high, a multiple of the stride; each ``body`` strip any multiple
    of the stride; the ``last`` one at least ``least_last_rows``. After ``r`` image rows (a multiple of the stride) the
    first ``r * scale - lag`` rows of the result are final. Each strip but the first reads ``NAME_in`` of every carry,
    each but the last writes ``NAME_out``.

    What a strip costs beyond a whole pass is predicted as a part that grows with the strip (``copied_passes``, of a
    pass) and one that does not (``recomputed_rows``, in image rows of a pass).

    The same graphs may serve images of other remainders: ``own_rows`` holds ``least_last_rows`` by that of the height,
    ``own_columns`` the carries' ``width_constant`` by that of the width.

    ``processor`` is empty where the graphs compute what one pass does on whatever runs both. Else they hold the
    arithmetic of one pass on CPUs of this architecture, and serve those alone: a network of fewer bits is computed in
    other types elsewhere.
    """

    startup_rows: int
    least_last_rows: int
    lag: int
    carries: tuple[Carry, ...]
    graphs: Mapping[StripRole, StripGraph]
    weights: Mapping[str, NDArray[Any]]
    copied_passes: float
    recomputed_rows: float
    own_rows: Mapping[int, int] = field(default_factory=dict)
    own_columns: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)
    processor: str = ""

    def at(self, rows: int | None, columns: int | None) -> StripModel | None:
        """For images of other remainders, None along an axis where it is not another; None where there are none."""
        if (rows is not None and rows not in self.own_rows) or (
            columns is not None and columns not in self.own_columns
        ):
            return None
        carries = self.carries
        if columns is not None:
            constants = self.own_columns[columns]
            carries = tuple(replace(carry, width_constant=own) for carry, own in zip(carries, constants, strict=True))
        least = self.least_last_rows if rows is None else self.own_rows[rows]
        return replace(self, least_last_rows=least, carries=carries)

    @property
    def key(self) -> Hashable:
        """What engines are opened for: equal only for the same graphs and carries."""
        return tuple(id(graph) for graph in self.graphs.values()), self.carries

    def passes(self, rows: int) -> float:
        """Return predicted time of a strip of ``rows`` rows, by that of the same rows in a whole pass."""
        return 1 + self.copied_passes + self.recomputed_rows / rows

    def carry_bytes(self, width: int) -> int:
        """Return bytes that one set of carries takes for strips of ``width`` image columns."""
        return sum(carry.bytes_at(width) for carry in self.carries)
