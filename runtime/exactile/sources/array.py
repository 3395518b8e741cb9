"""Pixels from an array in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box
from exactile.sources.axis_order import order_axes
from exactile.sources.channel_choice import ChannelCopy, choose_channels
from exactile.sources.identity import array_identity, image_identity
from exactile.sources.image_choice import ImageChoice
from exactile.sources.protocol import Identity, ReadCount, ReadPlan
from exactile.sources.read_request import check_read
from exactile.sources.sample_types import InexactSampleError, delivered_type, native_sample_type


class ArraySource:
    """A view of ``array``: (H, W), (H, W, C) or (C, H, W); samples of ``sample_types``; any strides.

    The array is borrowed, never copied. ``axes`` is YX, YXC or CYX; three axes are YXC unless told.
    Raises SourceError for another dtype or shape, OptionError for other axes, ChannelError for ``channels``
    that are not there.
    """

    def __init__(self, array: NDArray[Any], *, axes: str | None = None, channels: Sequence[int] | None = None) -> None:
        name = "array"
        order = order_axes(array.shape, axes, name)
        self.stored_dtype = native_sample_type(array.dtype, name)
        self.dtype = delivered_type(self.stored_dtype)
        self.height = order.height
        self.width = order.width
        chosen = choose_channels(channels, order.channels, name)
        self.channels = len(chosen)
        self.pixel_size_um: tuple[float, float] | None = None
        self._choice = ImageChoice(axes=axes)
        self._chosen = chosen
        self._array = array
        self._copy = ChannelCopy(chosen, tuple(range(len(chosen))))
        self._pixels = np.moveaxis(array, 0, 2) if order.planar else np.atleast_3d(array)

    def cache_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 - nothing is decoded, so nothing is kept
        """Return 0: nothing is decoded, so nothing is kept."""
        return 0

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        """Nothing to prepare: every read is a copy."""

    def read(self, box: Box, out: NDArray[Any]) -> None:
        """Copy ``box`` to ``out``: (rows, columns, channels). Raises SourceError if a sample does not fit."""
        check_read(self, box, out)
        try:
            self._copy.copy(self._pixels[box.slices()], out)
        except InexactSampleError as error:
            raise SourceError(f"array: {error.moved(box.y.start, box.x.start)}") from error

    def count(self) -> ReadCount:
        """Return zeros: an array has no chunks."""
        return ReadCount(chunks_decoded=0, chunks_stored=0)

    def identity(self) -> Identity:
        """Return what a resumed run compares: shape, sample type, chosen plane and a hash of samples."""
        return image_identity("array", self, self._choice, self._chosen) | array_identity(self._array)

    def close(self) -> None:
        """Nothing to release: the array is the caller's."""
