"""Try every way to run a network with statistics of the whole image, at small sizes, against one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import BudgetError
from exactile.geometry import round_up
from exactile.machine.memory import resident_bytes
from exactile.plan.strips import least_rows
from exactile.plan.tiles import suiting_tile
from exactile.planning import PlanName, Wish
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.graphs.io import Normalization
from exactile_converters.plain_runs.bounded import TooLargeError, check_room, pass_bytes
from exactile_converters.plain_runs.difference import compare
from exactile_converters.plain_runs.subject import Subject
from exactile_converters.verify.comparison import Comparison, against_double
from exactile_converters.verify.double import DoublePass, NoDoubleError
from exactile_converters.verify.meter import Meter
from exactile_converters.verify.passes_check import BREADTH_PX, LEAST_ZONE_PX, other_size, pair, tile_along
from exactile_converters.verify.pixels import Pixels
from exactile_converters.verify.whole import WholePass, whole_pass

Array = NDArray[Any]
STAGE = "ways to run it"

DOUBLE_PASSES = 8
"""A pass in float64 takes about as long as this many of ONNX Runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Tiles, or strips, of ``shape`` over an image of ``size``, both (height, width)."""

    plan: PlanName
    size: tuple[int, int]
    shape: tuple[int, int]
    kept_maps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PassesProof:
    """What was tried of a network with ``levels`` levels of ``statistics`` of the whole image.

    ``no_float64`` says where there was no pass in float64 to compare with, and why; ``untried`` what there was no
    memory for. ``fixed`` compares tiles with one pass of the network with fixed statistics, where errors were swept.
    """

    levels: int
    statistics: int
    ways: tuple[Comparison, ...]
    no_float64: str = ""
    untried: tuple[str, ...] = ()
    fixed: Comparison | None = None

    @property
    def holds(self) -> bool:
        """Return whether something was tried, and all of it holds."""
        tried = (*self.ways, *((self.fixed,) if self.fixed is not None else ()))
        return bool(self.ways) and all(way.holds for way in tried)


@dataclass(slots=True, kw_only=True)
class Ways:
    """Runs ``model``, which returns raw maps, and ``subject``, the whole network, on noise from ``seed``.

    ``allowed_bytes`` bounds the resident memory of the process.
    """

    model: DeployedModel
    subject: Subject
    double: DoublePass | None
    normalization: Normalization
    probability: bool
    seed: int
    allowed_bytes: int
    no_float64: str = ""
    untried: list[str] = field(default_factory=list)

    @property
    def all_work_px(self) -> int:
        """Return the work of ``proof``, see ``work_px``."""
        return sum(self.work_px(way.size) for way in self._ways())

    def work_px(self, size: tuple[int, int]) -> int:
        """Return about how many pixels the passes over an image of ``size`` compute, counting one pass and float64."""
        passes = 2 + len(self.model.levels) + (DOUBLE_PASSES if self.double is not None else 0)
        return passes * size[0] * size[1]

    def proof(self, meter: Meter) -> PassesProof:
        """Try all of them."""
        found = []
        meter.stage(STAGE)
        for way in self._ways():
            try:
                found.append(self.tried(way))
            except (TooLargeError, BudgetError) as error:
                self.untried.append(f"{way.plan} over {way.size[0]} x {way.size[1]} pixels: {error}")
            meter.advance(self.work_px(way.size))
        levels = self.model.levels
        return PassesProof(
            levels=len(levels),
            statistics=sum(len(level.statistics) for level in levels),
            ways=tuple(found),
            no_float64=self.no_float64,
            untried=tuple(self.untried),
        )

    def _ways(self) -> list[Way]:
        return [*self.in_tiles(0), *self.in_tiles(1), *self._in_strips()]

    def in_tiles(self, along: int) -> Iterator[Way]:
        """Yield tiles: two sizes, two grids, with kept maps and without."""
        geometry = self.model.contract.geometry
        axis, across = (geometry.y, geometry.x)[along], (geometry.x, geometry.y)[along]
        tile, breadth = tile_along(self.model, along), across.accepted_size(max(BREADTH_PX, across.stride))
        size = axis.accepted_size(tile + 3 * max(LEAST_ZONE_PX, 2 * axis.stride))
        other = other_size(axis, size)
        grids = tile, axis.accepted_size(tile + axis.stride)
        for length, grid, kept in (
            (size, grids[0], True),
            (size, grids[1], True),
            (size, grids[0], False),
            (other, grids[1], True),
            (other, grids[0], False),
        ):
            extent = pair(along, length, breadth)
            if kept and (self.model.keeping is None or self.model.keeping.at(extent) is None):
                continue
            shape = suiting_tile(geometry.of_size(extent), extent, "model", pair(along, grid, breadth))
            yield Way(plan="tile", size=extent, shape=shape, kept_maps=kept)

    def _in_strips(self) -> Iterator[Way]:
        strips, geometry = self.model.strips, self.model.contract.geometry
        if strips is None:
            return
        breadth = geometry.x.accepted_size(max(BREADTH_PX, geometry.x.stride))
        for rows in (2 * geometry.y.stride, 4 * geometry.y.stride):
            least = max(least_rows(strips), round_up(strips.startup_rows, rows) + 3 * rows)
            yield Way(plan="strip", size=(geometry.y.accepted_size(least), breadth), shape=(rows, breadth))

    def tried(self, way: Way) -> Comparison:
        """Run ``way`` on noise. Raises TooLargeError, BudgetError."""
        height, width = way.size
        need = resident_bytes() + pass_bytes(self.model, height, width)
        check_room(need, self.allowed_bytes, f"{height} x {width} pixels")
        image = self._noise(way.size)
        whole = whole_pass(self.subject, image, self.model.contract.geometry, self.normalization)
        model = self.model if way.kept_maps else replace(self.model, keeping=None)
        return self.compared(model, Pixels(array=image), whole, Wish(plan=way.plan, tile=way.shape))[0]

    def compared(
        self, model: DeployedModel, pixels: Pixels, whole: WholePass, wish: Wish, progress: Any = None
    ) -> tuple[Comparison, dict[str, Array]]:
        """Compare ``model`` on ``pixels`` with ``whole``; also return its statistics. Raises as ``Session`` does."""
        sink = ArraySink()
        with closing(Session(model, device="cpu", memory_bytes=self.allowed_bytes)) as session:
            run = session.image_run(ArraySource(pixels.array), sink, wish)
            if progress is not None:
                run.watcher = replace(run.watcher, progress=progress)
            summary = run.run()
        result = sink.result.astype(whole.output.dtype) if whole.output.dtype.kind != "f" else sink.result
        comparison = Comparison(
            pixels=pixels,
            tile=summary.tile,
            tiles=summary.tiles,
            output_shape=result.shape,
            difference=compare(result, whole.cropped, probability=self.probability),
            plan=summary.plan,
            kept_maps=bool(run.model.reads),
            pass_tiles=tuple(one.tiles for one in summary.passes),
        )
        exact = self._exact(whole)
        if exact is not None:
            try:
                error = against_double(result, whole.cropped, exact, probability=self.probability)
                comparison = replace(comparison, float64=error)
            except NoDoubleError as error_found:
                self.no_float64 = self.no_float64 or str(error_found)
        found = {
            name: np.array(one["values"], np.float32).reshape(one["shape"])
            for name, one in run.record["statistics"].items()
        }
        return comparison, found

    def _exact(self, whole: WholePass) -> Array | None:
        """Return the same pass in float64, (C', H', W')."""
        if self.double is None:
            return None
        try:
            height, width = whole.padded.shape[:2]
            need = resident_bytes() + self.double.bytes_at(height, width)
            check_room(need, self.allowed_bytes, f"{height} x {width} pixels in float64")
            found = self.double.run(whole.padded)
        except (NoDoubleError, TooLargeError) as error:
            self.no_float64 = self.no_float64 or str(error)
            return None
        return found[:, : whole.result[0], : whole.result[1]]

    def _noise(self, size: tuple[int, int]) -> Array:
        """Return (H, W, C), brighter at the end of the image, so that a zone's statistics are not the image's."""
        dtype, shape = np.dtype(self.model.contract.image.dtype), (*size, self.model.contract.image.channels)
        generator = np.random.default_rng(self.seed)
        slope = (np.arange(size[0])[:, None] / size[0] + np.arange(size[1]) / size[1])[..., None] / 2
        if dtype.kind == "f":
            return (generator.standard_normal(shape) + slope).astype(dtype)
        return np.asarray(generator.uniform(0, 128, shape) + 127 * slope).astype(dtype)
