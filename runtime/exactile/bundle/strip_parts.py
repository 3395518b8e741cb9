"""Strips, and graphs that take their position, in ``contract.json``."""

from __future__ import annotations

from exactile.bundle.contract_values import Architecture, Count, FileName, Part, Positive, Rational, WeightType
from exactile.bundle.network_parts import GraphPart, MemoryPart


class CarryPart(Part, frozen=True, kw_only=True):
    """Rows handed from strip to strip; see ``exactile.contract.Carry``. ``shape`` has null where columns are."""

    name: str
    of: str
    dtype: WeightType
    shape: tuple[Positive | None, ...]
    width_scale: Rational
    width_constant: Rational


class StripGraphPart(Part, frozen=True, kw_only=True):
    """One of the three strip graphs."""

    file: FileName
    memory: MemoryPart


class StripGraphsPart(Part, frozen=True, kw_only=True):
    """The strip graphs by role."""

    first: StripGraphPart
    body: StripGraphPart
    last: StripGraphPart


class StripsPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The strip plan of the network; see ``exactile.contract.StripModel``.

    ``own_rows`` and ``own_columns`` were added in version 3, ``processor`` in version 4.
    """

    startup_rows: Positive
    least_last_rows: Positive
    lag: int
    carries: tuple[CarryPart, ...]
    graphs: StripGraphsPart
    copied_passes: float
    recomputed_rows: float
    own_rows: tuple[tuple[Count, Positive], ...] = ()
    own_columns: tuple[tuple[Count, tuple[Rational, ...]], ...] = ()
    processor: Architecture = ""


class OtherStripsPart(Part, frozen=True, kw_only=True):
    """Strips for images whose (height, width) have other remainders than the geometry's first."""

    remainders: tuple[Count, Count]
    strips: StripsPart


class PlacedPart(Part, frozen=True, kw_only=True):
    """The graphs for sizes at which operators depend on the position; see ``exactile.contract.PlacedModel``."""

    graph: GraphPart
    memory: MemoryPart
    strips: StripsPart | None
    no_strips_reason: str
    other_strips: tuple[OtherStripsPart, ...] = ()
