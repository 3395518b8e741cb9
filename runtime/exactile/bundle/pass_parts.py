"""Passes that find statistics of the whole image in ``contract.json``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from exactile.bundle.contract_values import Channels, Count, Part, Positive, Rational, Stride, WeightType, Work
from exactile.bundle.network_parts import AxisPart, GeometryPart, GraphPart, MemoryPart


class StatisticPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A statistic of a feature map over the whole image; see ``exactile.contract.statistic.Statistic``."""

    kind: Literal["mean", "moments", "sum", "maximum", "minimum"]
    channels: Channels
    groups: Channels
    inputs: Annotated[tuple[str, ...], Meta(min_length=1, max_length=2)]
    shapes: Annotated[tuple[tuple[Positive, ...], ...], Meta(min_length=1, max_length=2)]
    grid: tuple[Positive, Positive] = (1, 1)


class MapLinePart(Part, frozen=True, kw_only=True):
    """How a map grows along an axis; see ``exactile.contract.device_graph.MapLine``."""

    scale: Rational
    stride: Stride
    constants: Annotated[tuple[tuple[Count, Rational], ...], Meta(min_length=1)]


class DevicePassPart(Part, frozen=True, kw_only=True):
    """The graph of a pass for GPUs; ``rows`` and ``columns`` are those of the map of each statistic.

    See ``exactile.contract.device_graph.DevicePass``.
    """

    graph: GraphPart
    rows: tuple[MapLinePart, ...]
    columns: tuple[MapLinePart, ...]


class LevelPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A pass over the image that finds statistics of it; see ``exactile.contract.Level``.

    ``placed_graph`` is the one for sizes at which operators depend on the position, ``on_device`` the one for GPUs.
    """

    geometry: GeometryPart
    memory: MemoryPart
    graph: GraphPart
    statistics: Annotated[tuple[StatisticPart, ...], Meta(min_length=1)]
    work: Work = 1.0
    placed_graph: GraphPart | None = None
    placed_memory: MemoryPart | None = None
    on_device: DevicePassPart | None = None


class KeptMapPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A map that is kept between passes; see ``exactile.contract.kept_map.KeptMap``. ``shape`` has null where rows and
    columns are, ``scale`` is that of (rows, columns).
    """

    output: str
    input: str
    dtype: WeightType
    shape: tuple[Positive | None, ...]
    scale: tuple[Rational, Rational]
    rows_first: bool = True


class KeptPassPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A pass that begins at kept maps; ``reads`` and ``writes`` are positions in the list of maps."""

    graph: GraphPart
    memory: MemoryPart
    reads: tuple[Count, ...]
    writes: tuple[Count, ...]
    reads_image: bool
    work: Work = 1.0
    placed_graph: GraphPart | None = None
    placed_memory: MemoryPart | None = None


class KeptAlongPart(Part, frozen=True, kw_only=True):
    """What holds for images of a ``remainder`` modulo the network's stride: for each pass the index of its geometry in
    the list of axes, and for each map the rows or columns beyond its share of the image.
    """

    remainder: Count
    geometry: tuple[Count, ...]
    constants: tuple[Rational, ...]


class KeepingPart(Part, frozen=True, kw_only=True):
    """Passes that begin at kept maps, that of the result the last; see ``exactile.contract.KeptPasses``.

    The graphs are those for images of the first remainders.
    """

    maps: Annotated[tuple[KeptMapPart, ...], Meta(min_length=1)]
    passes: Annotated[tuple[KeptPassPart, ...], Meta(min_length=2)]
    axes: tuple[AxisPart, ...]
    y: Annotated[tuple[KeptAlongPart, ...], Meta(min_length=1)]
    x: Annotated[tuple[KeptAlongPart, ...], Meta(min_length=1)]


class WholePart(Part, frozen=True, kw_only=True):
    """The graph that takes one pass over the whole image; see ``exactile.contract.WholeGraph``."""

    graph: GraphPart
    memory: MemoryPart
    obstacles: Annotated[tuple[str, ...], Meta(min_length=1)]
