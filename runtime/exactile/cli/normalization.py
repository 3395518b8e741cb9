"""The options for normalising samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from exactile.cli.options import NormalizeChoice
from exactile.cli.values import parse_numbers
from exactile.contract import ImageStatistics
from exactile.errors import OptionError
from exactile.request.normalization import NormalizationNumbers


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizationOptions:
    """The options as given."""

    normalize: NormalizeChoice | None
    percentiles: str | None
    joint_channels: bool
    scale: Sequence[str] | None
    mean: Sequence[str] | None
    std: Sequence[str] | None

    @property
    def given(self) -> list[str]:
        """Return the options that were used."""
        values: dict[str, object] = {
            "--normalize": self.normalize,
            "--percentiles": self.percentiles,
            "--joint-channels": self.joint_channels,
            "--scale": self.scale,
            "--mean": self.mean,
            "--std": self.std,
        }
        return [option for option, value in values.items() if value]

    def build(self, converter: ModuleType) -> Any:
        """Return the converter's ``Normalization``. Raises OptionError where options contradict each other."""
        return self.numbers.build(converter)

    @property
    def numbers(self) -> NormalizationNumbers:
        """Return the given options as numbers. Raises OptionError."""
        return NormalizationNumbers(
            scale=parse_numbers("scale", self.scale, 1.0) if self.scale else None,
            mean=parse_numbers("mean", self.mean, 0.0) if self.mean else None,
            std=parse_numbers("std", self.std, 1.0) if self.std else None,
            statistics=self._statistics(),
        )

    def _statistics(self) -> ImageStatistics | None:
        kind = self.normalize or NormalizeChoice.fixed
        if self.percentiles is not None and kind != NormalizeChoice.percentile:
            raise OptionError("--percentiles belongs to --normalize percentile")
        if self.joint_channels and kind == NormalizeChoice.fixed:
            raise OptionError("--joint-channels belongs to --normalize zscore or percentile")
        if kind == NormalizeChoice.fixed:
            return None
        if kind == NormalizeChoice.zscore:
            return ImageStatistics(kind="zscore", per_channel=not self.joint_channels)
        low, high = self._percentiles()
        return ImageStatistics(kind="percentile", low=low, high=high, per_channel=not self.joint_channels)

    def _percentiles(self) -> tuple[float, float]:
        if self.percentiles is None:
            return ImageStatistics(kind="percentile").low, ImageStatistics(kind="percentile").high
        found = parse_numbers("percentiles", [self.percentiles], 0.0)
        if len(found) != 2 or not 0 <= found[0] < found[1] <= 100:
            raise OptionError(f"--percentiles takes two numbers from 0 to 100, LOW,HIGH; got {self.percentiles!r}")
        return found[0], found[1]
