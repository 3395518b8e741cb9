"""Check a network with statistics of the whole image: its passes and the result's tiles against one pass."""

from __future__ import annotations

from collections.abc import Callable

from exactile.contract import DeployedModel
from exactile.geometry import AxisGeometry, round_up
from exactile.plan.strips import least_rows
from exactile_converters.deploy import deploy_in_passes
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.graphs.image_in import fitting_image_type
from exactile_converters.networks.network import Network
from exactile_converters.plain_runs.bounded import Bounded
from exactile_converters.plain_runs.plan_check import STEPPING, PlanCheck
from exactile_converters.plain_runs.subject import Subject, private_copy, value_named

BREADTH_PX = 24
LEAST_ZONE_PX = 12
STEPS = 3


class PassesCheck:
    """Tries tiles along both axes, at the best size for tiles and at another one, and strips.

    ``result`` has the axes of the network's output. ``plans`` holds what was found.
    """

    def __init__(self, network: Network, result: FeatureMap, *, strips: bool, allowed: int) -> None:
        self._network, self._strips = network, strips
        self.model = self._deployed(None)
        copy = private_copy(network)
        subject = Subject(copy, value_named(copy, network.result.name or ""), result)
        self._bounded = Bounded(subject, self.model, allowed)
        self._stepping = any(node.op_type in STEPPING for node in network.model.graph)
        self.plans = PlanCheck(self.model, self._bounded, stepping=self._stepping)

    def _deployed(self, size: tuple[int, int] | None) -> DeployedModel:
        return deploy_in_passes(
            self._network,
            image_dtype=fitting_image_type(self._network),
            output="raw",
            strips=self._strips and size is None,
            image_size=size,
        )

    def tiles(self, step: Callable[[], None]) -> str:
        """Return how they differ from one pass; empty where they do not. Raises TooLargeError, BudgetError."""
        geometry = self.model.contract.geometry
        for along in (0, 1):
            axes = geometry.y, geometry.x
            axis, other = axes[along], axes[1 - along]
            tile = tile_along(self.model, along)
            breadth = other.accepted_size(max(BREADTH_PX, other.stride))
            size = axis.accepted_size(tile + 2 * axis.stride)
            found = self.plans.difference("tile", pair(along, size, breadth), pair(along, tile, breadth))
            found = found or self._at_own_size(along, size, breadth, tile)
            step()
            if found:
                return found
        return ""

    def _at_own_size(self, along: int, size: int, breadth: int, tile: int) -> str:
        """Compare at a size of another remainder, if there is one, deployed for it: maps are kept between passes."""
        geometry = self.model.contract.geometry
        axis: AxisGeometry = (geometry.y, geometry.x)[along]
        own = other_size(axis, size)
        if own != size:
            size, tile = own, tile + (own - tile) % axis.stride
        extent = pair(along, size, breadth)
        plans = PlanCheck(self._deployed(extent), self._bounded, stepping=self._stepping)
        found = plans.difference("tile", extent, pair(along, tile, breadth))
        self.plans.max_abs, self.plans.largest = max(
            (self.plans.max_abs, self.plans.largest), (plans.max_abs, plans.largest)
        )
        return found

    def strips(self) -> str:
        """Return how strips differ. Raises TooLargeError, BudgetError."""
        strips, geometry = self.model.strips, self.model.contract.geometry
        if strips is None:
            return ""
        rows = 2 * geometry.y.stride
        height = geometry.y.accepted_size(max(least_rows(strips), round_up(strips.startup_rows, rows) + 3 * rows))
        breadth = geometry.x.accepted_size(max(BREADTH_PX, geometry.x.stride))
        return self.plans.difference("strip", (height, breadth), (rows, breadth))


def tile_along(model: DeployedModel, along: int) -> int:
    """Return the pixels of a tile that cuts the image into several, in all passes."""
    passes = [(one.contract.geometry.y, one.contract.geometry.x)[along] for one in (model, *_levels(model))]
    axis = passes[0]
    return axis.accepted_size(
        max(one.margin_before + one.margin_after for one in passes) + max(LEAST_ZONE_PX, 2 * axis.stride)
    )


def _levels(model: DeployedModel) -> list[DeployedModel]:
    return [level.model for level in model.levels]


def other_size(axis: AxisGeometry, size: int) -> int:
    """Return the next size of another remainder that can be cut, if there is one."""
    others = [other for other in axis.others or () if not other.one_pass]
    if not others:
        return size
    other = others[len(others) // 2]
    return max(other.least, size + (other.remainder - size) % other.stride)


def pair(along: int, one: int, other: int) -> tuple[int, int]:
    """Return (height, width) of ``one`` along the axis, ``other`` across."""
    return (one, other) if along == 0 else (other, one)
