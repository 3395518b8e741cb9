"""What is known of a value in a graph at one image size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Fact:
    """Element type, shape (None: depends on data) and, for constants, the value."""

    dtype: int
    shape: tuple[int, ...] | None
    value: NDArray[Any] | None = None
