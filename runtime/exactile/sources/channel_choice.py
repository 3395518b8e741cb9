"""Choose channels of an image, and copy them from stored samples to the caller's array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from exactile.errors import ChannelError
from exactile.sources.sample_types import convert_samples


def choose_channels(wanted: Sequence[int] | None, available: int, name: str) -> tuple[int, ...]:
    """Return channel numbers in the order wanted (any order, repeats allowed); all of them for ``None``.

    Raises ChannelError for an empty choice or a channel that the image does not have.
    """
    if wanted is None:
        return tuple(range(available))
    chosen = tuple(int(channel) for channel in wanted)
    if not chosen:
        raise ChannelError(f"{name}: no channel was chosen; the image has {available}, numbered from 0")
    missing = [channel for channel in chosen if not 0 <= channel < available]
    if missing:
        raise ChannelError(
            f"{name}: channel {missing[0]} was requested, but the image has {available}, numbered 0 to {available - 1}"
        )
    return chosen


def _progression(numbers: Sequence[int]) -> slice | None:
    """Return the slice that takes exactly ``numbers``, or None when no slice does."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if step == 0 or any(b - a != step for a, b in pairwise(numbers)):
        return None
    stop = numbers[-1] + (1 if step > 0 else -1)
    return slice(numbers[0], stop if stop >= 0 else None, step)


@dataclass(frozen=True)
class ChannelCopy:
    """Copies stored sample ``samples[i]`` to the caller's channel ``targets[i]``."""

    samples: tuple[int, ...]
    targets: tuple[int, ...]

    @cached_property
    def _slices(self) -> tuple[slice, slice] | None:
        """Slices that take all samples to all targets at once, if there are any."""
        samples, targets = _progression(self.samples), _progression(self.targets)
        return None if samples is None or targets is None else (samples, targets)

    def copy(self, stored: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy ``stored`` (H, W, samples) to ``out`` (H, W, channels), converting type and byte order.

        Raises InexactSampleError for a value that ``out`` cannot hold.
        """
        if self._slices is not None:
            samples, targets = self._slices
            convert_samples(stored[:, :, samples], out[:, :, targets])
            return
        for sample, target in zip(self.samples, self.targets, strict=True):
            convert_samples(stored[:, :, sample], out[:, :, target])

    def fill(self, value: float, out: NDArray[Any]) -> None:
        """Set the caller's channels in ``out`` (H, W, channels) to ``value``."""
        for target in self.targets:
            out[:, :, target] = value
