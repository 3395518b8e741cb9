"""The normalisation of samples before the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from exactile.contract import ImageStatistics
from exactile.errors import ChannelError, OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """``(sample / scale - mean) / std``; each one value, or one for each channel.

    With ``statistics``, ``(sample - offset) / scale`` by those of the whole image is applied before.
    """

    scale: tuple[float, ...] = (1.0,)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    statistics: ImageStatistics | None = None

    def __post_init__(self) -> None:
        for name, values in (("scale", self.scale), ("mean", self.mean), ("std", self.std)):
            if not values or not all(np.isfinite(values)):
                raise OptionError(f"--{name} must be one finite number, or one for each channel; got {list(values)}")
        for name, values in (("scale", self.scale), ("std", self.std)):
            if 0.0 in values:
                raise OptionError(f"--{name} must not be 0; got {list(values)}")

    @property
    def steps(self) -> tuple[tuple[Literal["Div", "Sub"], tuple[float, ...], float], ...]:
        """Return the operators in order: the name, the numbers, and the neutral number."""
        return ("Div", self.scale, 1.0), ("Sub", self.mean, 0.0), ("Div", self.std, 1.0)

    def check_channels(self, channels: int) -> None:
        """Raise ChannelError unless each of the three holds one value, or one for each of ``channels``."""
        for name, values in (("scale", self.scale), ("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ChannelError(
                    f"--{name} has {len(values)} values and the model takes {channels} channel(s); "
                    f"give one value, or {channels}"
                )
