"""A contract and the graphs it speaks about: those of the network, and of passes that find statistics of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from exactile.contract.built_engine import BuiltEngine
from exactile.contract.contract import Contract
from exactile.contract.device_graph import DevicePass
from exactile.contract.error_curve import ErrorCurve
from exactile.contract.kept_map import KeptAlong, KeptMap
from exactile.contract.memory_model import MemoryModel
from exactile.contract.placed_model import PlacedModel
from exactile.contract.statistic import Statistic
from exactile.contract.strip_model import StripModel
from exactile.contract.tuning import Tuning
from exactile.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A pass over the image that finds ``statistics`` of it, where those of earlier levels are known.

    ``model`` has the geometry of zones of the image: its scale is 1. Its graphs give partial statistics of a zone; see
    ``exactile.contract.statistic``. ``on_device`` is the same for GPUs; None where there is no such graph.
    """

    model: DeployedModel
    statistics: tuple[Statistic, ...]
    on_device: DevicePass | None = None

    @property
    def device_model(self) -> DeployedModel:
        """``model`` with the graph for GPUs, which there must be."""
        assert self.on_device is not None
        return replace(self.model, graph=self.on_device.graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeGraph:
    """A network that finds statistics of the whole image by itself, in one pass; ``obstacles`` to tiles, in words."""

    graph: bytes
    memory: MemoryModel
    obstacles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class DeployedModel:
    """A contract and the ONNX graph it speaks about; dimensions ``height`` and ``width`` are symbolic.

    ``weights`` are the constants that the graph refers to as external data, by name; ``claims`` what every graph's
    metadata must say. ``strips`` is None where the network cannot be run in strips; ``no_strips_reason`` then says why.
    ``other_strips`` are those for images of other remainders than the geometry's first, by (height, width) remainder.
    ``engines`` were built for this very model; ``engines_refused`` says of others beside the bundle why they are not
    used. ``image_size``, (height, width), is that of the images that it was deployed for; None where it is for all.
    ``placed`` are the graphs for sizes of which the geometry says so; those of the model itself are for all
    others, and where there are no others, they are the same. ``levels`` are the passes that find the statistics which
    its graphs take of the whole image, in order; ``statistics_key`` is a SHA-256 of all that these depend on.

    Passes may begin at maps that earlier ones kept: this one ``reads`` such, and as one of the levels ``writes`` them;
    it reads pixels only where it is said so. ``keeping`` is the same network with kept maps, ``whole`` the one that
    takes one pass over the whole image. ``work`` is the predicted time of this pass for a pixel, without halo, by that
    of one pass of the whole network. ``error_curve`` has the error of smaller halos, where it was
    measured, ``tuning`` how fast tiles and strips were on some machine.
    """

    contract: Contract
    graph: bytes
    strips: StripModel | None = None
    no_strips_reason: str = ""
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)
    engines: tuple[BuiltEngine, ...] = ()
    engines_refused: tuple[str, ...] = ()
    other_strips: Mapping[tuple[int, int], StripModel] = field(default_factory=dict)
    placed: PlacedModel | None = None
    image_size: tuple[int, int] | None = None
    levels: tuple[Level, ...] = ()
    statistics_key: str = ""
    reads: tuple[KeptMap, ...] = ()
    writes: tuple[KeptMap, ...] = ()
    reads_image: bool = True
    work: float = 1.0
    keeping: KeptPasses | None = None
    whole: WholeGraph | None = None
    error_curve: ErrorCurve | None = None
    tuning: Tuning | None = None

    def lacks(self, size: tuple[int, int]) -> bool:
        """Return whether more is known, or strips are built, where it is deployed for images of ``size``, (height,
        width).
        """
        geometry = self.contract.geometry
        if self.image_size is not None or self.contract.obstacles:
            return False
        axes = list(zip((geometry.y, geometry.x), size, strict=True))
        if any(axis.others is None and px % axis.stride != axis.remainder for axis, px in axes):
            return True
        of_size = geometry.of_size(size)
        cut = not any(axis.one_pass for axis in (of_size.y, of_size.x))
        return self.at(of_size).strips is not None and cut and self.strips_at(of_size) is None

    def at(self, geometry: Geometry) -> DeployedModel:
        """Return the model for images of this size: ``geometry`` is the contract's ``of_size``."""
        if self.placed is None or not geometry.placed:
            return self
        placed = self.placed
        return replace(
            self,
            contract=replace(self.contract, memory=placed.memory),
            graph=placed.graph,
            strips=placed.strips,
            no_strips_reason=placed.no_strips_reason,
            other_strips=placed.other_strips,
        )

    @property
    def without_placed(self) -> DeployedModel:
        """The same for engines that cannot be told where a tile lies: other images are extended."""
        if self.placed is None:
            return self
        contract = replace(self.contract, geometry=self.contract.geometry.without_placed)
        return replace(self, contract=contract, placed=None)

    def on(self, processor: str) -> DeployedModel:
        """Return the same without strips that hold the arithmetic of another processor than ``processor``.

        That is a CPU's architecture, as ``exactile.machine.architecture`` names it, or "gpu".
        """
        made_for = self.strips.processor if self.strips is not None else ""
        if made_for in ("", processor):
            return self
        return self.without_strips(
            f"of fewer bits, its strips hold the arithmetic of {made_for} CPUs, and are for those alone"
        )

    def without_strips(self, reason: str) -> DeployedModel:
        """Return the same without any strips, for ``reason``."""
        placed = self.placed
        if placed is not None:
            placed = replace(placed, strips=None, other_strips={}, no_strips_reason=reason)
        return replace(self, strips=None, other_strips={}, no_strips_reason=reason, placed=placed)

    def strips_at(self, geometry: Geometry) -> StripModel | None:
        """Return the strips for images of this remainder: ``geometry`` is the contract's ``of_size``."""
        return self.at(geometry)._strips_at(geometry)  # noqa: SLF001 -- of another model of the same class

    def _strips_at(self, geometry: Geometry) -> StripModel | None:
        wanted, (height, width) = (geometry.y.remainder, geometry.x.remainder), self._remainders
        if wanted == (height, width) or wanted in self.other_strips or self.strips is None:
            return self.strips if wanted == (height, width) else self.other_strips.get(wanted)
        return self.strips.at(
            *(one if one != first else None for one, first in zip(wanted, (height, width), strict=True))
        )

    def no_strips_at(self, geometry: Geometry) -> str:
        """Return why there are none."""
        model = self.at(geometry)
        if model.strips is None:
            return model.no_strips_reason
        one_pass = next((axis.one_pass for axis in (geometry.y, geometry.x) if axis.one_pass), "")
        if one_pass:
            return f"images of this size cannot be cut: {one_pass}"
        stride = f"{geometry.y.stride} x {geometry.x.stride}"
        return f"its strips are for images of other sizes modulo the stride, {stride}"

    @property
    def _remainders(self) -> tuple[int, int]:
        return self.contract.geometry.y.remainder, self.contract.geometry.x.remainder


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPasses:
    """The passes of a network that begin at kept maps, for images that can be cut.

    ``model`` has the graphs, levels included; what it says of sizes holds for images of one remainder. ``geometry`` is
    the network's; ``y`` and ``x`` tell what holds by the remainder of height and width modulo its stride.
    """

    model: DeployedModel
    geometry: Geometry
    y: Mapping[int, KeptAlong]
    x: Mapping[int, KeptAlong]

    def at(self, size: tuple[int, int]) -> DeployedModel | None:
        """Return the model for images of ``size``, (height, width); None where nothing is kept."""
        axes = []
        for axis, known, px in zip((self.geometry.y, self.geometry.x), (self.y, self.x), size, strict=True):
            found = axis.of_size(px)
            if found.one_pass or found.remainder not in known:
                return None
            along = known[found.remainder]
            axes.append(along if axis.takes(px) else along.extended(found.stride, found.remainder))
        levels = tuple(
            replace(level, model=_kept_at(level.model, index, axes, size))
            for index, level in enumerate(self.model.levels)
        )
        return replace(_kept_at(self.model, len(levels), axes, size), levels=levels)


def _kept_at(model: DeployedModel, index: int, axes: Sequence[KeptAlong], size: tuple[int, int]) -> DeployedModel:
    """Return the ``index``-th pass for images of ``size``."""
    y, x = axes

    def maps(found: tuple[KeptMap, ...]) -> tuple[KeptMap, ...]:
        return tuple(replace(one, constant=(y.constants[one.output], x.constants[one.output])) for one in found)

    geometry = Geometry(y=y.geometry[index], x=x.geometry[index])
    return replace(
        model,
        contract=replace(model.contract, geometry=geometry),
        image_size=size,
        reads=maps(model.reads),
        writes=maps(model.writes),
    )
