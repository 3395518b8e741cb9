"""Where a piece lies in the whole map, and the interface to which nodes are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a piece lies along one axis; all names are of int64 tensors of shape (1,) in the graph."""

    dim: int
    """The dimension of the operand and of the result."""
    begin: str
    """First index of the wanted piece, in the whole result."""
    count: str
    """Length of the piece. Where it follows from shapes alone, ONNX Runtime knows all shapes before it runs."""
    source: str
    """Index in the whole operand of the first entry in the given tensor."""
    source_size: str
    """Length of the whole operand along this axis."""
    result_size: str
    """Length of the whole result along this axis."""
    scale: float | None
    """The scale given to the node; None where the node resizes to sizes."""
    most_taps: int = 1
    """Most taps of a pixel along this axis, where the node smooths what it shrinks (antialias)."""


class Nodes(Protocol):
    """The graph to which nodes are added."""

    def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output; return its name."""

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant; return its name."""
