"""Plain data that describes an image to a worker, and about each kind of work on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.distributed.request import Request
from exactile.geometry import Box
from exactile.image_statistics.tallies import Normalizers
from exactile.passes.fixed import FixedStatistics
from exactile.pipeline.stored_values import NanReport
from exactile.plan.part import fitted, part_of
from exactile.plan.prediction import Plan
from exactile.plan.tiles import TilePlan
from exactile.planning import PlanName
from exactile.runs.summary import Summary
from exactile.sinks.zarr.blocks import SharedZarr


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image and what computes it, as plain data: what a worker keeps open between tasks.

    ``image`` and ``processor`` are the identities that a worker must find; another image, or another engine, would give
    other bytes.
    """

    key: str
    model: DeployedModel
    address: str
    image: Mapping[str, Any]
    processor: Mapping[str, Any]
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelWork:
    """A pass that finds statistics: ``level`` of the model's, in tiles of (height, width), those of lower levels known.

    ``size`` is what the pass of the result runs over, (height, width).
    """

    level: int
    size: tuple[int, int]
    tile: tuple[int, int]
    constants: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWork:
    """The pass of the result. ``shape`` is the tile, or strip rows and band width; ``fitted`` tiles end with blocks."""

    plan: PlanName
    shape: tuple[int, int]
    fitted: bool
    normalizers: Normalizers | None
    statistics: FixedStatistics | None
    target: SharedZarr

    def part(self, plan: Plan, box: Box) -> Plan:
        """Return the part of ``plan`` that gives ``box``."""
        return part_of(self.in_blocks(plan), box)

    def in_blocks(self, plan: Plan) -> Plan:
        """Return ``plan``, in tiles that end with blocks unless a tile was requested."""
        return fitted(plan, self.target.edge) if self.fitted and isinstance(plan, TilePlan) else plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Many images."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesWork:
    """The options for each of many images; ``sink_options`` are those of ``open_sink``."""

    request: Request
    sink_options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneImage:
    """One of many images, run by one worker. ``image`` and ``processor`` are the identities that it must find.

    Its record is compared with ``asked``.
    """

    address: str
    target: str
    image: Mapping[str, Any]
    processor: Mapping[str, Any]
    asked: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWork:
    """The model of some of the images; ``key`` names it."""

    key: str
    model: DeployedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """A worker's report on an image; ``record`` is what was run."""

    summary: Summary
    record: Mapping[str, Any]
    worker: str
    machine: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """A worker's report on a block that it wrote; ``machine`` is what computed it."""

    number: int
    worker: str
    machine: Mapping[str, Any]
    pixels: int
    computed_pixels: int
    seconds: float
    peak_memory_bytes: int
    nan: NanReport
