"""The image that a graph takes, and statistics of all of it that enter the normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StatisticsKind = Literal["zscore", "percentile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatistics:
    """What must be known of the whole image before any of it is normalised: ``(sample - offset) / scale``.

    ``zscore``: the mean, and the standard deviation plus ``epsilon``. ``percentile``: the ``low`` percentile, and the
    distance from there to the ``high`` one plus ``epsilon``. For each channel, or for all together. Offset and scale
    enter the graphs by inputs of these names, (1, C, 1, 1) float32.
    """

    kind: StatisticsKind
    low: float = 1.0
    high: float = 99.8
    epsilon: float = 1e-6
    per_channel: bool = True
    offset_name: str = "exactile_offset"
    scale_name: str = "exactile_scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """The graph's input: an image tile as stored, ``(H, W, C)``, C-contiguous.

    ``statistics`` of the whole image are further inputs, where the normalisation asks for them.
    """

    name: str
    dtype: str
    channels: int
    statistics: ImageStatistics | None = None
