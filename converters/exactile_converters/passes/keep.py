"""Deploy a network with statistics of the whole image so that maps are kept between passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import onnx
from numpy.typing import NDArray

from exactile.bundle.kept_passes import NO_STRIPS
from exactile.contract import Contract, DeployedModel, KeptPasses, Level, MemoryModel, PlacedModel
from exactile.contract.kept_map import KeptAlong, KeptMap
from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.deploy_graphs import finished_graph, sizes_looked_at
from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Wrapped
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.passes.keeping import Cuts
from exactile_converters.passes.levels import LevelOf, with_work
from exactile_converters.passes.partials import over_everything, wrap_partials
from exactile_converters.passes.segments import Segment, begin_at, pass_geometry
from exactile_converters.passes.statistics import statistic_of
from exactile_converters.passes.walks import Walks
from exactile_converters.placed.told import Told
from exactile_converters.strips.memory import graph_memory
from exactile_converters.strips.outside import share_weights

Weights = dict[str, NDArray[Any]]


def keeping(
    network: Network,
    traced: Traced,
    levels: tuple[LevelOf, ...],
    told: Told,
    *,
    image_size: tuple[int, int] | None,
    image_dtype: str,
    normalization: Normalization,
    wrapped: Callable[[], Wrapped],
) -> KeptPasses | None:
    """Return the kept passes for images of all sizes, or of the remainders of ``image_size``; None if nothing is kept.

    ``image_size`` is (height, width). ``wrapped`` builds the whole network again, with its result; ``network`` is
    traced, its windows written, and it is not modified.
    """
    walks = Walks.of(traced, image_size)
    if walks is None:
        return None
    cuts = Cuts(traced, levels, network.result)
    segments = cuts.best()
    names = sorted({name for segment in segments for name in segment.writes})
    if not names:
        return None
    maps = {name: walks.kept(name, index) for index, name in enumerate(names)}
    making = _Making(network, traced, walks, maps, told, segments, levels)

    def partials(level: LevelOf, segment: Segment) -> Wrapped:
        return wrap_partials(
            network,
            traced,
            level,
            image_dtype=image_dtype,
            normalization=normalization,
            also=segment.writes,
        )

    found = tuple(
        Level(
            model=making.model(index, lambda level=level, segment=segment: partials(level, segment), zoned=True),  # type: ignore[misc]
            statistics=tuple(statistic_of(one, traced) for one in level),
        )
        for index, (level, segment) in enumerate(zip(levels, segments, strict=False))
    )
    works = cuts.work(segments)
    result = replace(making.model(len(levels), wrapped, zoned=False), levels=with_work(found, works), work=works[-1])
    assert traced.geometry is not None
    y, x = (making.along(axis) for axis in SPATIAL)
    return KeptPasses(model=result, geometry=traced.geometry, y=y, x=x)


class _Making:
    """Builds the passes of one network, which share their weights."""

    def __init__(
        self,
        network: Network,
        traced: Traced,
        walks: Walks,
        maps: dict[str, KeptMap],
        told: Told,
        segments: Sequence[Segment],
        levels: Sequence[LevelOf],
    ) -> None:
        self._network, self._traced, self._walks, self._maps, self._told = network, traced, walks, maps, told
        self._segments = segments
        self._image = next(iter(traced.features))
        self._weights: Weights = {}
        self._asked: set[str] = set()
        targets = [[*(one.of.name or "" for one in level)] for level in levels]
        self._geometry = {
            axis: {remainder: tuple(self._passes(axis, remainder, walk, targets)) for remainder, walk in known.items()}
            for axis, known in walks.along.items()
        }

    def along(self, axis: Label) -> dict[int, KeptAlong]:
        """Return the kept maps by remainder. Where graphs need sizes of maps, the first remainder's are written."""
        return {
            remainder: KeptAlong(
                geometry=geometry,
                constants={name: self._walks.constant(name, axis, remainder) for name in self._maps},
            )
            for remainder, geometry in self._geometry[axis].items()
            if all(
                self._walks.constant(name, axis, remainder) == self._walks.constant(name, axis) for name in self._asked
            )
        }

    def _passes(
        self, axis: Label, remainder: int, walk: ForwardWalk, targets: Sequence[Sequence[str]]
    ) -> Iterator[AxisGeometry]:
        """Yield the geometry of each pass, that of the result last."""
        for segment, reduced in zip(self._segments, targets, strict=False):
            yield pass_geometry(walk, segment, [*reduced, *segment.writes], self._image, axis, remainder)
        name, base = self._network.result.name or "", self._traced.geometry
        assert base is not None
        zone = pass_geometry(walk, self._segments[-1], [name], self._image, axis, remainder)
        feature, origin = walk.features[name], (base.y if axis == "y" else base.x).origin
        yield replace(zone, scale=feature.scale[axis], origin=origin, size_constant=feature.constant[axis])

    def model(self, index: int, wrapped: Callable[[], Wrapped], *, zoned: bool) -> DeployedModel:
        """Return the ``index``-th pass; with ``zoned``, its zone is an input."""
        segment = self._segments[index]
        reads = tuple(self._maps[name] for name in segment.reads)
        writes = tuple(self._maps[name] for name in segment.writes)
        taken: Weights = {}

        def made() -> Wrapped:
            found = wrapped()
            write_for_provider(found.model)
            self._asked |= begin_at(found.model, reads, writes, self._walks, self._image)
            return found

        def graph_of(asking: Told | None) -> tuple[bytes, MemoryModel]:
            proto = finished_graph(made(), asking)
            taken.update(share_weights(proto, self._weights, self._network.model.graph.initializers))
            return proto.SerializeToString(), self._memory(made(), asking, reads, zoned=zoned)

        y, x = (self._geometry[axis][first][index] for axis, first in zip(SPATIAL, self._walks.first, strict=True))
        placed = None
        if any(one[index].placed for known in self._geometry.values() for one in known.values()):
            graph, memory = graph_of(self._told)
            placed = PlacedModel(graph=graph, memory=memory)
        if placed is None or not (y.placed or x.placed):
            graph, memory = graph_of(None)
        once = made()
        contract = Contract(
            model_name=self._network.name,
            geometry=Geometry(y=y, x=x),
            image=once.image,
            result=once.result,
            memory=memory,
        )
        return DeployedModel(
            contract=contract,
            graph=graph,
            weights=taken,
            placed=placed,
            no_strips_reason=NO_STRIPS,
            reads=reads,
            writes=writes,
            reads_image=segment.image,
        )

    def _memory(self, found: Wrapped, asking: Told | None, reads: tuple[KeptMap, ...], *, zoned: bool) -> MemoryModel:
        if zoned:
            over_everything(found.model)
        proto: onnx.ModelProto = finished_graph(found, asking)
        return graph_memory(proto, *sizes_looked_at(self._traced, self._walks.first), kept=reads)
