"""What the converter promises about a model, and the runtime relies on."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exactile.built_engine import BuiltEngine
from exactile.geometry import Geometry
from exactile.passes.device_graph import DevicePass
from exactile.passes.kept_map import KeptAlong, KeptMap
from exactile.passes.statistic import Statistic
from exactile.tolerance.curve import ErrorCurve
from exactile.tuning.tuning import Tuning

OutputKind = Literal["labels", "multilabel", "probabilities", "raw"]
Activation = Literal["none", "sigmoid", "softmax"]
"""What is left to apply to a network's output to have probabilities."""


StatisticsKind = Literal["zscore", "percentile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatistics:
    """What must be known of the whole image before any of it is normalised: ``(sample - offset) / scale``.

    ``zscore``: the mean, and the standard deviation plus ``epsilon``. ``percentile``: the ``low`` percentile, and the
    distance from there to the ``high`` one plus ``epsilon``. For each channel, or for all together. Offset and scale
    enter the graphs by inputs of these names, (1, C, 1, 1) float32.
    """

    kind: StatisticsKind
    low: float = 1.0
    high: float = 99.8
    epsilon: float = 1e-6
    per_channel: bool = True
    offset_name: str = "exactile_offset"
    scale_name: str = "exactile_scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """The graph's input: an image tile as stored, ``(H, W, C)``, C-contiguous.

    ``statistics`` of the whole image are further inputs, where the normalisation asks for them.
    """

    name: str
    dtype: str
    channels: int
    statistics: ImageStatistics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelClass:
    """What a label stands for, and its colour, each part 0 to 255.

    ``code`` is a coded concept, SCHEME:VALUE:MEANING, such as "SCT:108369006:Neoplasm"; empty where there is none.
    """

    value: int
    name: str
    rgb: tuple[int, int, int]
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOutput:
    """The graph's output: ``(H, W)`` for labels (``channels`` is 0), else ``(C, H, W)``.

    ``classes``: how many the labels tell apart; 0 where that is not known; ``labels`` what they mean.
    ``rule`` says in a sentence how numbers became the result, ``doubt`` what the graph does not prove of it;
    ``threshold`` is that of the probability, where there is one; ``activation`` what makes probabilities of the
    network's output: none, sigmoid, softmax or exp; empty where it holds none.

    ``dtype`` is what the graph gives, ``stored`` what is written where that is not the same: each value is then checked
    on its way. ``nan_label`` marks labels whose scores are not numbers, ``may_be_nan`` is true of maps that can hold
    such, ``unproven`` of probabilities that are not known to be within 0 to 1.
    """

    name: str
    kind: OutputKind
    dtype: str
    channels: int
    classes: int = 0
    labels: tuple[LabelClass, ...] = ()
    rule: str = ""
    doubt: str = ""
    threshold: float | None = None
    activation: str = ""
    stored: str = ""
    nan_label: int | None = None
    may_be_nan: bool = False
    unproven: bool = False

    @property
    def stored_dtype(self) -> str:
        """The type of what is written."""
        return self.stored or self.dtype


@dataclass(frozen=True, slots=True, order=True)
class BytesForShape:
    """Bytes, or elements, as a function of the tile's height and width: ``area*h*w + row*h + column*w + constant``."""

    area: float
    row: float = 0.0
    column: float = 0.0
    constant: float = 0.0

    def at(self, height: int, width: int) -> float:
        return self.area * height * width + self.row * height + self.column * width + self.constant


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """What one inference needs beside the process itself: the largest of ``steps`` plus the weights.

    ``elements`` are those of tensors that may be the largest; empty where they were not recorded.
    """

    weights_bytes: int
    steps: tuple[BytesForShape, ...]
    elements: tuple[BytesForShape, ...] = ()

    def activation_bytes(self, height: int, width: int) -> int:
        """Return peak bytes of all live activations for a tile of ``height`` x ``width`` input pixels."""
        return int(max(step.at(height, width) for step in self.steps))

    def largest_tensor(self, height: int, width: int) -> int:
        """No tensor has more elements at this tile shape; where they were not recorded, as many as there are bytes."""
        return int(max(count.at(height, width) for count in self.elements or self.steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Rows of the feature map ``of`` that each strip hands to the next: graph input ``NAME_in``, output ``NAME_out``.

    ``shape`` has None where columns are: as many as ``width * width_scale + width_constant``; in the graphs this
    dimension is named ``width_name``.
    """

    name: str
    of: str
    dtype: str
    shape: tuple[int | None, ...]
    width_scale: Fraction
    width_constant: Fraction

    @property
    def width_name(self) -> str:
        return f"{self.name}_width"

    def columns_at(self, width: int) -> int:
        """Return columns for strips of ``width`` image columns, an accepted width."""
        return int(width * self.width_scale + self.width_constant)

    def shape_at(self, width: int) -> tuple[int, ...]:
        """Return the shape for strips of ``width`` image columns, an accepted width."""
        columns = self.columns_at(width)
        return tuple(columns if size is None else size for size in self.shape)

    def bytes_at(self, width: int) -> int:
        return math.prod(self.shape_at(width)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How it is known that tiles and strips of a model equal one pass.

    ``by`` is "running" where the model was run in tiles, in strips and in one pass, and compared; "rules" where only
    its graph was read; "one pass" where there is nothing else; "probe" where no rule proves it, and its halo is that
    which runs found: not proven. ``note`` says what was found, or why nothing was run.
    """

    by: Literal["running", "rules", "one pass", "probe"] = "rules"
    note: str = ""

    @property
    def sentence(self) -> str:
        words = {
            "running": "proved by running",
            "rules": "by rules only",
            "one pass": "it is one pass",
            "probe": "not proven, trusted by --trust-probe",
        }[self.by]
        return f"{words}: {self.note}" if self.note else words


BY_RULES = Verification()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A model as the runtime sees it.

    ``obstacles`` to exact tiling, in words: where there are any, the model runs in one pass, over images of
    ``only_size``, (height, width). ``in_passes``: they are statistics of the whole image, and deployed in another way
    the network runs in tiles, after passes that find them. ``mac_per_pixel`` is what one pass computes for each pixel
    of the image, in multiply-accumulates in float32; operators that memory bounds count as many as take as long. 0: not
    known. ``notes`` are sentences for people on what the model's own file declares, ``pixel_size_um`` the pixel in
    micrometres that it was made for; None where it does not say so.
    """

    model_name: str
    geometry: Geometry
    image: ImageInput
    result: ResultOutput
    memory: MemoryModel
    verification: Verification = BY_RULES
    obstacles: tuple[str, ...] = ()
    only_size: tuple[int, int] | None = None
    in_passes: bool = False
    mac_per_pixel: float = 0.0
    notes: tuple[str, ...] = ()
    pixel_size_um: float | None = None


StripRole = Literal["first", "body", "last"]

POSITION = "exactile_position"
"""A further input of graphs with placed operators, int64 (4,): the first row of the tile or strip, the image's height,
the first column, the image's width, in pixels of the image as the network sees it, borders included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripGraph:
    """One of the three graphs of a strip plan, and the memory of one run of it.

    Dimensions ``height`` and ``width`` of the image are symbolic. Weights are outside: ``StripModel.weights``.
    """

    graph: bytes
    memory: MemoryModel


@dataclass(frozen=True, slots=True, kw_only=True)
class StripModel:
    """How a network takes an image in strips, top to bottom.

    The ``first`` strip is at least ``startup_rows`` high, a multiple of the stride; each ``body`` strip any multiple
    of the stride; the ``last`` one at least ``least_last_rows``. After ``r`` image rows (a multiple of the stride) the
    first ``r * scale - lag`` rows of the result are final. Each strip but the first reads ``NAME_in`` of every carry,
    each but the last writes ``NAME_out``.

    What a strip costs beyond a whole pass is predicted as a part that grows with the strip (``copied_passes``, of a
    pass) and one that does not (``recomputed_rows``, in image rows of a pass).

    The same graphs may serve images of other remainders: ``own_rows`` holds ``least_last_rows`` by that of the height,
    ``own_columns`` the carries' ``width_constant`` by that of the width.

    ``processor`` is empty where the graphs compute what one pass does on whatever runs both. Else they hold the
    arithmetic of one pass on CPUs of this architecture, and serve those alone: a network of fewer bits is computed in
    other types elsewhere.
    """

    startup_rows: int
    least_last_rows: int
    lag: int
    carries: tuple[Carry, ...]
    graphs: Mapping[StripRole, StripGraph]
    weights: Mapping[str, NDArray[Any]]
    copied_passes: float
    recomputed_rows: float
    own_rows: Mapping[int, int] = field(default_factory=dict)
    own_columns: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)
    processor: str = ""

    def at(self, rows: int | None, columns: int | None) -> StripModel | None:
        """For images of other remainders, None along an axis where it is not another; None where there are none."""
        if (rows is not None and rows not in self.own_rows) or (
            columns is not None and columns not in self.own_columns
        ):
            return None
        carries = self.carries
        if columns is not None:
            constants = self.own_columns[columns]
            carries = tuple(replace(carry, width_constant=own) for carry, own in zip(carries, constants, strict=True))
        least = self.least_last_rows if rows is None else self.own_rows[rows]
        return replace(self, least_last_rows=least, carries=carries)

    @property
    def key(self) -> Hashable:
        """What engines are opened for: equal only for the same graphs and carries."""
        return tuple(id(graph) for graph in self.graphs.values()), self.carries

    def passes(self, rows: int) -> float:
        """Return predicted time of a strip of ``rows`` rows, by that of the same rows in a whole pass."""
        return 1 + self.copied_passes + self.recomputed_rows / rows

    def carry_bytes(self, width: int) -> int:
        """Return bytes that one set of carries takes for strips of ``width`` image columns."""
        return sum(carry.bytes_at(width) for carry in self.carries)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A pass over the image that finds ``statistics`` of it, where those of earlier levels are known.

    ``model`` has the geometry of zones of the image: its scale is 1. Its graphs give partial statistics of a zone; see
    ``exactile.passes.statistic``. ``on_device`` is the same for GPUs; None where there is no such graph.
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

        That is a CPU's architecture, as ``exactile.architecture`` names it, or "gpu".
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
