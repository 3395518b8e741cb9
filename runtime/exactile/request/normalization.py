"""How samples are normalised, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from exactile.contract import ImageStatistics
from exactile.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizationNumbers:
    """``(sample / scale - mean) / std``, each one number or one for each channel; or by ``statistics`` of the image."""

    scale: Sequence[float] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    statistics: ImageStatistics | None = None

    @property
    def numbers(self) -> NormalizationNumbers:
        """Return these."""
        return self

    @property
    def given(self) -> list[str]:
        """The options that were given, by the names of the command line's options."""
        statistics = ["--normalize"] if self.statistics is not None else []
        return [*statistics, *self._fixed]

    @property
    def _fixed(self) -> list[str]:
        numbers = {"--scale": self.scale, "--mean": self.mean, "--std": self.std}
        return [option for option, given in numbers.items() if given is not None]

    def build(self, converter: ModuleType) -> Any:
        """Return the converter's ``Normalization``. Raises OptionError if both fixed numbers and
        statistics were given.
        """
        if self.statistics is not None and self._fixed:
            raise OptionError(f"{', '.join(self._fixed)}: fixed numbers exclude --normalize {self.statistics.kind}")
        return converter.Normalization(
            scale=tuple(self.scale or (1.0,)),
            mean=tuple(self.mean or (0.0,)),
            std=tuple(self.std or (1.0,)),
            statistics=self.statistics,
        )
