"""What a worker needs to know to run any block of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exactile.contract import DeployedModel
from exactile.geometry import Box
from exactile.plan.border import Border
from exactile.plan.part import fitted, part_of
from exactile.plan.prediction import Plan
from exactile.plan.tiles import TilePlan
from exactile.planning import PlanName
from exactile.sinks.zarr_blocks import SharedZarr
from exactile.statistics import Normalizers
from exactile.stored_values import NanReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image, as plain data. ``shape`` is the tile, or strip rows and band width; ``fitted`` tiles end with blocks.

    ``image`` and ``processor`` are the identities that a worker must find: what else it reads, or computes with, would
    give other bytes.
    """

    key: str
    model: DeployedModel
    address: str
    source_options: Mapping[str, Any]
    image: Mapping[str, Any]
    processor: Mapping[str, Any]
    plan: PlanName
    shape: tuple[int, int]
    fitted: bool
    border: Border
    normalizers: Normalizers | None
    nodata: float | None
    nodata_label: int | None
    memory_bytes: int | None
    threads: int | None
    engine: str
    target: SharedZarr

    def part(self, plan: Plan, box: Box) -> Plan:
        """What of ``plan`` gives ``box``."""
        return part_of(self.in_blocks(plan), box)

    def in_blocks(self, plan: Plan) -> Plan:
        """``plan``, in tiles that end with blocks where these are not asked for."""
        return fitted(plan, self.target.edge) if self.fitted and isinstance(plan, TilePlan) else plan


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """What a worker says of a block that it wrote."""

    number: int
    worker: str
    pixels: int
    computed_pixels: int
    seconds: float
    peak_memory_bytes: int
    nan: NanReport
