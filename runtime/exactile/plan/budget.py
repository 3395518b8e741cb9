"""The memory that a plan needs, and the tiles that compute the fewest pixels within a budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Contract, DeployedModel
from exactile.errors import BudgetError, OptionError
from exactile.geometry import round_up
from exactile.plan.border import Border
from exactile.plan.lanes import in_lanes
from exactile.plan.speed import TILE_OVERHEAD_PX, USUAL, Speed
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import AxisDomain, TilePlan, tile_plans

INPUT_SLOTS = 3
"""Tiles being read, waiting and being inferred, in one lane."""

OUTPUT_SLOTS = 2
"""Results being inferred and being written, of each lane."""

LARGEST_CACHE_SHARE = 0.25
"""Decoded chunks kept for the next row of tiles may take this share of the budget before tiles shrink."""

CHECKED_CANDIDATES = 4000

SMALL_FACTORS = (1, 1.25, 1.5, 2, 2.5, 3, 4)
"""Tiles that are tried for the least memory: multiples of the smallest."""

SENSIBLE = 1.05
"""Factor by which the requested least budget may exceed the true one, if larger tiles, which are faster, need it."""

SPREAD_BYTES = 256 << 10
"""Bytes by which equal processes differ."""

KEPT_ROW_PX = 64
"""Extra cost of a row of a tile with kept maps, in computed pixels: files are read in strips of columns."""

NEGLIGIBLE = 0.01
"""A tile that takes less memory is preferred when its plan is predicted to be slower by no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Peak bytes of a run by purpose. ``cache_bytes`` and ``spare_bytes`` are optional, the rest is required.

    ``source_bytes`` are those of an image that is decoded whole, ``decoding_bytes`` what decoding a chunk of another
    takes, ``spare_bytes`` those that a sink can do without. ``apart_bytes`` are used before or after the network runs
    (statistics, small pictures), instead of everything else but the process's own; with ``engine_stays``, in addition
    to it. ``device_bytes`` are those on each GPU, at most ``most_device_bytes``; ``device_refusal`` says what else
    prevents the plan there. ``beside`` such runs are concurrent, and the requirement is for all of them.
    """

    process_bytes: int
    weights_bytes: int
    activation_bytes: int
    buffer_bytes: int
    sink_bytes: int
    cache_bytes: int
    source_bytes: int = 0
    decoding_bytes: int = 0
    apart_bytes: int = 0
    engine_stays: bool = False
    device_bytes: int = 0
    most_device_bytes: int = 0
    device_refusal: str = ""
    spare_bytes: int = 0
    beside: int = 1

    def times(self, runs: int) -> MemoryNeed:
        """Return the requirement of so many concurrent runs, without optional parts."""
        return replace(
            self,
            weights_bytes=runs * self.weights_bytes,
            activation_bytes=runs * self.activation_bytes,
            buffer_bytes=runs * self.buffer_bytes,
            sink_bytes=runs * (self.sink_bytes + self.spare_bytes),
            cache_bytes=0,
            source_bytes=runs * (self.source_bytes + self.cache_bytes),
            decoding_bytes=runs * self.decoding_bytes,
            apart_bytes=runs * self.apart_bytes,
            spare_bytes=0,
            beside=runs,
        )

    @property
    def needed_bytes(self) -> int:
        """The required bytes."""
        network = self.weights_bytes + self.activation_bytes
        running = network + self.buffer_bytes + self.sink_bytes + self.source_bytes + self.decoding_bytes
        apart = self.apart_bytes + (network if self.engine_stays else 0)
        return self.process_bytes + max(running, apart)

    def granted_cache(self, budget_bytes: int) -> int:
        """Return the part of the cache that fits into the budget."""
        return max(0, min(self.cache_bytes, budget_bytes - self.needed_bytes))

    def granted_spare(self, budget_bytes: int) -> int:
        """Return what is then left for the sink's optional bytes; no tile is smaller for that."""
        left = budget_bytes - self.needed_bytes - self.granted_cache(budget_bytes)
        return max(0, min(self.spare_bytes, left))

    def fits(self, budget_bytes: int) -> bool:
        reserved = min(self.cache_bytes, int(budget_bytes * LARGEST_CACHE_SHARE))
        on_device = self.device_bytes <= self.most_device_bytes and not self.device_refusal
        return on_device and self.needed_bytes + reserved <= budget_bytes

    def shortage(self, budget_bytes: int) -> str:
        """Return which resource is too small, and the remedy."""
        if self.device_refusal:
            return self.device_refusal
        if self.device_bytes > self.most_device_bytes:
            most = format_bytes(self.most_device_bytes)
            return (
                f"needs about {format_bytes(self.device_bytes)} on the GPU, where {most} may be used; "
                "raise --device-memory, or run on --device cpu"
            )
        return (
            f"needs about {format_bytes(least_budget(self))} and the memory budget is {format_bytes(budget_bytes)} "
            f"({format_bytes(self.process_bytes)} go to the process itself); raise --memory"
        )


Measure = Callable[[TilePlan], MemoryNeed]


def input_slots(lanes: int) -> int:
    """Return the number of input slots: one tile is read; for each lane, one waits and one is inferred."""
    return (INPUT_SLOTS - 1) * lanes + 1


def slot_bytes(contract: Contract, plan: TilePlan | StripPlan) -> int:
    """Return the bytes of the staging buffers for input tiles and results."""
    image, result = contract.image, contract.result
    tile_bytes = prod(plan.tile_shape) * image.channels * np.dtype(image.dtype).itemsize
    values = prod(plan.tile_output_shape) * max(1, result.channels)
    result_bytes = values * np.dtype(result.dtype).itemsize
    narrowed_bytes = values * np.dtype(result.stored).itemsize if result.stored else 0
    inputs, results = min(len(plan), input_slots(plan.lanes)), plan.lanes * min(len(plan), OUTPUT_SLOTS)
    return inputs * tile_bytes + results * result_bytes + narrowed_bytes


def choose_tiles(
    model: DeployedModel,
    image: tuple[int, int],
    border: Border,
    *,
    budget_bytes: int,
    measure: Measure,
    lanes: int = 1,
    speed: Speed = USUAL,
) -> TilePlan:
    """Return the plan of least predicted cost whose need fits ``budget_bytes``: the cost of pixels, plus that of each
    tile.

    On a CPU, the cost of a pixel depends on the memory of a tile, according to ``speed``. ``lanes`` are those of the
    plan.

    With kept maps, each row of a tile has a cost, too.

    Raises BudgetError with the least sufficient budget, PlanError if there are fewer tiles than lanes.
    """
    contract, geometry = model.contract, model.contract.geometry
    row_px = KEPT_ROW_PX if model.reads or model.writes else 0
    y, x = AxisDomain.of(geometry.y, image[0], border), AxisDomain.of(geometry.x, image[1], border)
    rows, columns = axis_candidates(y), axis_candidates(x)
    plan_of = tile_plans(geometry, image, border)
    need = measure(plan_of((y.size, x.size)))
    fixed = need.process_bytes if need.activation_bytes else 0  # on a GPU, activations are not the host's
    rough = budget_bytes - contract.memory.weights_bytes - fixed
    speed_on_cpu = speed if need.activation_bytes > 0 else None
    for height, width in _cheapest_first(contract, rows, columns, rough // lanes, row_px, lanes, speed_on_cpu):
        plan = in_lanes(plan_of((height, width)), lanes)
        if measure(plan).fits(budget_bytes):
            return plan
    smallest = in_lanes(plan_of((y.smallest_tile, x.smallest_tile)), lanes)
    if measure(smallest).fits(budget_bytes):
        return smallest
    small = [(plan, measure(plan)) for plan in _small_plans(smallest, rows, columns, plan_of)]
    least_bytes = min(least_budget(need) for _, need in small)
    sensible = [(plan, need) for plan, need in small if least_budget(need) <= least_bytes * SENSIBLE]
    plan, need = min(sensible, key=lambda pair: pair[0].computed_pixels + len(pair[0]) * TILE_OVERHEAD_PX)
    height, width = plan.tile_shape
    raise BudgetError(
        f"even a small tile ({height}x{width}) {need.shortage(budget_bytes)}", least_bytes=least_budget(need)
    )


def _small_plans(
    smallest: TilePlan,
    rows: list[tuple[int, int]],
    columns: list[tuple[int, int]],
    plan_of: Callable[[tuple[int, int]], TilePlan],
) -> Iterator[TilePlan]:
    """Yield the smallest tile, some that are not much larger, and low ones that are wide.

    Which takes least also depends on what sources and sinks hold.
    """
    shapes = [smallest.tile_shape]
    for factor in SMALL_FACTORS:
        height, width = (
            next((size for size, _ in reversed(sizes) if size >= factor * least), sizes[0][0])
            for sizes, least in zip((rows, columns), smallest.tile_shape, strict=True)
        )
        shapes += [(height, width), (height, columns[0][0])]
    for shape in dict.fromkeys(shapes):
        plan = plan_of(shape)
        if len(plan) >= smallest.lanes:
            yield in_lanes(plan, smallest.lanes)


def least_budget(need: MemoryNeed) -> int:
    """Return the smallest budget that ``need`` fits, in whole MiB: processes differ by some pages."""
    whole = need.needed_bytes + need.cache_bytes
    least = min(whole, int(need.needed_bytes / (1 - LARGEST_CACHE_SHARE)) + 1)
    return round_up(least + SPREAD_BYTES, 1 << 20)


def axis_candidates(domain: AxisDomain) -> list[tuple[int, int]]:
    """Return (tile, number of tiles) along one axis: for each number of tiles the smallest tile that achieves it."""
    stride = domain.geometry.stride
    found: dict[int, int] = {}
    for tile in range(domain.size, domain.smallest_tile - 1, -stride):
        count = 1 if tile == domain.size else -(-(domain.size - tile) // domain.advance(tile)) + 1
        found[count] = tile
    return [(tile, count) for count, tile in found.items()]


def _cheapest_first(
    contract: Contract,
    rows: list[tuple[int, int]],
    columns: list[tuple[int, int]],
    rough_bytes: int,
    row_px: int,
    lanes: int,
    speed: Speed | None,
) -> Iterator[tuple[int, int]]:
    """Return tile shapes whose activations alone fit, cheapest first; of those that cost hardly more, the smaller tile.

    ``lanes`` wait for the one with most tiles; shapes with fewer tiles than lanes are left out.
    """
    heights, row_counts = np.array(rows, np.float64).T[:, :, None]
    widths, column_counts = np.array(columns, np.float64).T[:, None, :]
    tiles = row_counts * column_counts
    cost = np.ceil(tiles / lanes) * (heights * (widths + row_px) + TILE_OVERHEAD_PX)
    bytes_needed = _activation_bytes(contract, heights, widths)
    if speed is not None:
        cost = cost * speed.of("tile", lanes, lanes * bytes_needed) + speed.once(lanes * bytes_needed) / lanes
    steps = np.floor(np.log(cost / cost.min()) / np.log1p(NEGLIGIBLE))
    fitting = np.flatnonzero((bytes_needed <= rough_bytes) & (tiles >= lanes))
    area = (heights * widths).ravel()
    order = fitting[np.lexsort((area[fitting], steps.ravel()[fitting]))]
    for index in order[:CHECKED_CANDIDATES]:
        row, column = divmod(int(index), len(columns))
        yield rows[row][0], columns[column][0]


def _activation_bytes(contract: Contract, heights: NDArray[Any], widths: NDArray[Any]) -> NDArray[np.float64]:
    most = np.zeros(np.broadcast_shapes(heights.shape, widths.shape))
    for step in contract.memory.steps:
        here = step.area * heights * widths + step.row * heights + step.column * widths + step.constant
        np.maximum(most, here, out=most)
    return most


def format_bytes(count: float) -> str:
    """Format bytes: ``1610612736`` -> ``1.50 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


BYTES = {"": 1, "b": 1, "k": 1000, "kb": 1000, "kib": 1 << 10, "m": 10**6, "mb": 10**6, "mib": 1 << 20}
BYTES |= {"g": 10**9, "gb": 10**9, "gib": 1 << 30, "t": 10**12, "tb": 10**12, "tib": 1 << 40}


def parse_bytes(text: str | None, option: str = "--memory") -> int | None:
    """Parse ``2GiB``, ``1500MB``, ``1.5GiB`` or a number of bytes."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in BYTES:
        raise OptionError(f"{option} takes an amount such as 2GiB or 1500MB, got {text!r}")
    return int(float(match[1]) * BYTES[match[2].lower()])
