"""Compare tiles of a network that no rule proves local with one pass: at several sizes, seeds and positions.

One difference on one image is enough to reject it. Sizes at which tiles differ, while others do not, are run in one
piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from exactile.contract import DeployedModel
from exactile.errors import BudgetError, EngineError
from exactile.geometry import AxisGeometry, Geometry, round_up
from exactile.machine.memory import resident_bytes
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.networks.network import Network
from exactile_converters.plain_runs.bounded import Bounded, TooLargeError
from exactile_converters.plain_runs.claim import Axis
from exactile_converters.plain_runs.plan_check import STEPPING, PlanCheck
from exactile_converters.plain_runs.subject import Subject, private_copy, value_named
from exactile_converters.probed.limited import Limited
from exactile_converters.probed.locality import AXES, Locality
from exactile_converters.probed.refusal import NotLocalError

MEMORY_BYTES = 1 << 30
"""Memory that the check may use in addition to the process's current memory."""

SEEDS = (11, 12, 13)

LEAST_ADVANCE_PX = 32
"""Least distance from one tile to the next."""

Pair = tuple[int, int]

NOT_SHOWN = "runs do not show tiles of images of such a size to equal one pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """The result of the check: ``geometry`` has the sizes at which tiles were equal.

    ``images`` were compared, the largest of ``largest`` pixels. ``max_abs`` is the largest difference of a value,
    ``values_up_to`` the largest value compared.
    """

    geometry: Geometry
    images: int
    largest: Pair
    max_abs: float
    values_up_to: float


def check_steady(
    network: Network, model: DeployedModel, result: FeatureMap, locality: Locality, *, seconds: float
) -> Steady:
    """Compare tiles of ``model``, ``network`` deployed for its own output, ``result``, with one pass.

    Raises NotLocalError where they differ at sizes that are multiples of the period, or the check could not decide.
    """
    return _Check(network, model, result, locality, seconds).found()


class _Check:
    def __init__(
        self, network: Network, model: DeployedModel, result: FeatureMap, locality: Locality, seconds: float
    ) -> None:
        self._locality, self._geometry = locality, model.contract.geometry
        copy = private_copy(network)
        limited = Limited(Subject(copy, value_named(copy, result.name), result), network, seconds)
        runs = Bounded(limited, model, resident_bytes() + MEMORY_BYTES)
        stepping = any(node.op_type in STEPPING for node in network.model.graph)
        self._plans = PlanCheck(model, runs, stepping=stepping, seeds=SEEDS, every=True)
        self._images = 0
        self._largest = (0, 0)

    def found(self) -> Steady:
        """Return the result. Raises NotLocalError."""
        for size, tile in self._usual():
            if differs := self._differs(size, tile):
                raise NotLocalError(f"tiles with the halo that runs found do not equal one pass: {differs}")
        if not self._plans.reacts:
            raise NotLocalError("its output is the same whatever the image is")
        y, x = (self._with_others(axis) for axis in AXES)
        return Steady(
            geometry=Geometry(y=y, x=x),
            images=self._images,
            largest=self._largest,
            max_abs=self._plans.max_abs,
            values_up_to=self._plans.largest,
        )

    def _differs(self, size: Pair, tile: Pair) -> str:
        try:
            found = self._plans.difference("tile", size, tile)
        except (TooLargeError, BudgetError, EngineError) as error:
            raise NotLocalError(f"tiles could not be compared with one pass: {error}") from error
        self._images += len(SEEDS)
        self._largest = max(self._largest, size, key=lambda pair: pair[0] * pair[1])
        return found

    def _usual(self) -> Iterator[tuple[Pair, Pair]]:
        """Yield sizes and tiles: long along one axis, longer, and square."""
        y, x = (_tile(axis) for axis in (self._geometry.y, self._geometry.x))
        long_y, long_x = (_long(axis, 2) for axis in (self._geometry.y, self._geometry.x))
        breadth_y, breadth_x = self._locality.y.breadth, self._locality.x.breadth
        yield (long_y, breadth_x), (y, breadth_x)
        yield (breadth_y, long_x), (breadth_y, x)
        yield (long_y, long_x), (y, x)
        yield (_long(self._geometry.y, 7), breadth_x), (y, breadth_x)
        yield (breadth_y, _long(self._geometry.x, 7)), (breadth_y, x)

    def _with_others(self, axis: Axis) -> AxisGeometry:
        """Return the geometry along ``axis``, including sizes of other remainders."""
        along = self._geometry.y if axis == "y" else self._geometry.x
        return replace(along, others=tuple(self._other(axis, along, other) for other in along.others or ()))

    def _other(self, axis: Axis, along: AxisGeometry, other: AxisGeometry) -> AxisGeometry:
        size = _long(along, 2) + other.remainder
        across = self._locality.x.breadth if axis == "y" else self._locality.y.breadth
        sizes, tiles = (_extent(axis, px, across) for px in (size, _tile(along)))
        return replace(other, one_pass=NOT_SHOWN) if self._differs(sizes, tiles) else other


def _tile(axis: AxisGeometry) -> int:
    advance = round_up(max(LEAST_ADVANCE_PX, axis.stride), axis.stride)
    return axis.accepted_size(round_up(axis.before, axis.stride) + advance + axis.after)


def _long(axis: AxisGeometry, advances: int) -> int:
    """Return the size of an image that needs about this many more tiles than one."""
    return axis.accepted_size(_tile(axis) + advances * round_up(max(LEAST_ADVANCE_PX, axis.stride), axis.stride))


def _extent(axis: Axis, along: int, across: int) -> Pair:
    return (along, across) if axis == "y" else (across, along)


def sizes_in_words(steady: Steady) -> str:
    """Describe what was compared, for display."""
    height, width = steady.largest
    exactly = (
        f"max-abs {steady.max_abs:.2g} of values up to {steady.values_up_to:.3g}" if steady.max_abs else "bit for bit"
    )
    return f"tiles equal one pass over {steady.images} images of up to {height} x {width} pixels, {exactly}"
