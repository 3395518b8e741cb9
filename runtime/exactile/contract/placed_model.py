"""Graphs that take the position of a tile or strip in the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exactile.contract.memory_model import MemoryModel
from exactile.contract.strip_model import StripModel

POSITION = "exactile_position"
"""A further input of graphs with placed operators, int64 (4,): the first row of the tile or strip, the image's height,
the first column, the image's width, in pixels of the image as the network sees it, borders included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedModel:
    """The graphs for images at whose size some operator depends on the position; all take ``POSITION``.

    ``strips`` is None where there are none; ``no_strips_reason`` then says why. ``other_strips`` are as for
    ``DeployedModel``.
    """

    graph: bytes
    memory: MemoryModel
    strips: StripModel | None = None
    no_strips_reason: str = ""
    other_strips: Mapping[tuple[int, int], StripModel] = field(default_factory=dict)
