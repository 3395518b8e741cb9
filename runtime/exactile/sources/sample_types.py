"""Which sample types are taken, what they are delivered as, and the check that nothing is lost on the way.

Samples are delivered in the machine's byte order as one of three types, which graphs take::

    stored                                                delivered
    uint8, uint16, float32                                as stored
    bool (also of 1 bit)                                  uint8, 0 and 1
    int8, int16, float16                                  float32, which holds all their values
    int32, uint32, float64                                float32 where it holds the value exactly, else an error
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError

SAMPLE_TYPES = ("uint8", "uint16", "float32")
_DELIVERED = {name: name for name in SAMPLE_TYPES} | {
    "bool": "uint8",
    "int8": "float32",
    "int16": "float32",
    "float16": "float32",
    "int32": "float32",
    "uint32": "float32",
    "float64": "float32",
}
_CHECKED = ("int32", "uint32", "float64")
_BLOCK_SAMPLES = 1 << 18
"""Samples that are converted at a time, so that the check needs little memory."""

_ALL_EXACT = 1 << 24
"""float32 holds every whole number up to this one."""


@runtime_checkable
class StoresSamples(Protocol):
    """A source whose samples may be stored as another type than they are delivered."""

    stored_dtype: np.dtype[Any]


def stored_type(source: Any) -> np.dtype[Any]:
    """Return the stored type of the samples of ``source``."""
    return source.stored_dtype if isinstance(source, StoresSamples) else np.dtype(source.dtype)


class InexactSampleError(Exception):
    """A sample that float32 cannot hold exactly, at pixel (``y``, ``x``) of whatever was read."""

    def __init__(self, value: object, dtype: str, y: int, x: int) -> None:
        super().__init__(
            f"the pixel y {y}, x {x} is {value!s}, which float32 does not hold exactly; convert the image to float32"
            f" if rounding its {dtype} samples is right, e.g. with array.astype('float32'), or scale them"
        )
        self.value, self.dtype, self.y, self.x = value, dtype, y, x

    def moved(self, dy: int, dx: int) -> InexactSampleError:
        """Return the same error relative to an origin ``dy`` rows and ``dx`` columns before."""
        return InexactSampleError(self.value, self.dtype, self.y + dy, self.x + dx)

    def transposed(self) -> InexactSampleError:
        return InexactSampleError(self.value, self.dtype, self.x, self.y)


def native_sample_type(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return ``dtype``, as stored, in native byte order. Raises SourceError if its samples are not supported."""
    native = dtype.newbyteorder("=")
    if native.name not in _DELIVERED:
        raise SourceError(
            f"{name}: samples are {native.name}, but only {', '.join(_DELIVERED)} are read;"
            " convert the image to one of these"
        )
    return native


def delivered_type(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return the delivered type of samples stored as ``stored``, a supported type."""
    return np.dtype(_DELIVERED[stored.newbyteorder("=").name])


def convert_samples(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy ``stored`` (H, W, ...) to ``out`` of the same shape, converting type and byte order.

    Raises InexactSampleError where a value does not fit.
    """
    if stored.dtype == out.dtype:
        out[...] = stored
        return
    name = stored.dtype.newbyteorder("=").name
    if name not in _CHECKED or out.dtype != np.float32:
        out[...] = stored
        return
    rows = max(1, _BLOCK_SAMPLES * len(stored) // max(1, stored.size))
    for start in range(0, len(stored), rows):
        try:
            _convert_exactly(stored[start : start + rows], out[start : start + rows], name)
        except InexactSampleError as error:
            raise error.moved(start, 0) from None


def _convert_exactly(stored: NDArray[Any], out: NDArray[Any], name: str) -> None:
    with np.errstate(over="ignore"):
        out[...] = stored
    if not stored.size:
        return
    if stored.dtype.kind in "iu" and stored.max() <= _ALL_EXACT and int(stored.min()) >= -_ALL_EXACT:
        return
    # Both in float64, which holds each of them.
    wrong = (out.astype(np.float64) != stored) & (stored == stored)  # noqa: PLR0124 - NaN stays NaN
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise InexactSampleError(stored[place], name, place[0], place[1])
