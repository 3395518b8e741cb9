"""Deploy a network that takes statistics of the whole image with maps that are kept between passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx
from numpy.typing import NDArray

from exactile.contract import Contract, DeployedModel, Level, MemoryModel
from exactile.geometry import AxisGeometry, Geometry
from exactile.passes.kept_map import KeptMap
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.deploy_graphs import finished_graph, sizes_looked_at
from exactile_converters.from_onnx import Network
from exactile_converters.geometry.node_view import SPATIAL
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Wrapped
from exactile_converters.graphs.normalization import Normalization
from exactile_converters.passes.keeping import Cuts, Segment
from exactile_converters.passes.levels import LevelOf
from exactile_converters.passes.partials import over_everything, wrap_partials
from exactile_converters.passes.segments import AtSize, begin_at, pass_geometry
from exactile_converters.passes.statistics import statistic_of
from exactile_converters.placed.told import Told
from exactile_converters.strips.build import share_weights
from exactile_converters.strips.memory import graph_memory

Weights = dict[str, NDArray[Any]]


def keeping(
    network: Network,
    traced: Traced,
    levels: tuple[LevelOf, ...],
    told: Told,
    *,
    image_size: tuple[int, int],
    image_dtype: str,
    normalization: Normalization,
    wrapped: Callable[[], Wrapped],
) -> DeployedModel | None:
    """For images of ``image_size``, (height, width); None where they are extended, cut nowhere, or nothing is kept.

    ``wrapped`` makes the whole network anew, with its result; ``network`` is traced, its windows written, and stays as
    it is.
    """
    at = AtSize.of(traced, image_size)
    if at is None:
        return None
    segments = Cuts(traced, levels, network.result).best()
    names = sorted({name for segment in segments for name in segment.writes})
    if not names:
        return None
    maps = {name: at.kept(name, index) for index, name in enumerate(names)}
    making = _Making(network, traced, at, maps, told, {})

    def partials(level: LevelOf, segment: Segment) -> Wrapped:
        return wrap_partials(
            network,
            traced.features,
            level,
            image_dtype=image_dtype,
            normalization=normalization,
            also=segment.writes,
        )

    found = [
        making.level(level, segment, lambda level=level, segment=segment: partials(level, segment))  # type: ignore[misc]
        for level, segment in zip(levels, segments, strict=False)
    ]
    result = making.result(segments[-1], wrapped)
    return replace(result, levels=tuple(found))


class _Making:
    """Makes the passes of one network, which share their weights."""

    def __init__(
        self,
        network: Network,
        traced: Traced,
        at: AtSize,
        maps: dict[str, KeptMap],
        told: Told,
        weights: Weights,
    ) -> None:
        self._network, self._traced, self._at, self._maps = network, traced, at, maps
        self._told, self._weights = told, weights
        self._image = next(iter(traced.features))

    def level(self, level: LevelOf, segment: Segment, wrapped: Callable[[], Wrapped]) -> Level:
        targets = [one.of.name or "" for one in level]
        geometry = self._geometry(segment, [*targets, *segment.writes])
        model = self._model(segment, geometry, wrapped, zoned=True)
        return Level(
            model=model,
            statistics=tuple(statistic_of(one, self._traced) for one in level),
        )

    def result(self, segment: Segment, wrapped: Callable[[], Wrapped]) -> DeployedModel:
        name, base = self._network.result.name or "", self._traced.geometry
        assert base is not None
        zones = self._geometry(segment, [name])
        y, x = (
            self._of_result(name, index, zone, of_image)
            for index, (zone, of_image) in enumerate(((zones.y, base.y), (zones.x, base.x)))
        )
        return self._model(segment, Geometry(y=y, x=x), wrapped, zoned=False)

    def _of_result(self, name: str, index: int, zone: AxisGeometry, of_image: AxisGeometry) -> AxisGeometry:
        axis = SPATIAL[index]
        feature = self._at.feature(name, axis)
        return replace(zone, scale=feature.scale[axis], origin=of_image.origin, size_constant=feature.constant[axis])

    def _geometry(self, segment: Segment, targets: list[str]) -> Geometry:
        y, x = (pass_geometry(self._at, segment, targets, self._image, axis) for axis in SPATIAL)
        return Geometry(y=y, x=x)

    def _model(
        self, segment: Segment, geometry: Geometry, wrapped: Callable[[], Wrapped], *, zoned: bool
    ) -> DeployedModel:
        reads = tuple(self._maps[name] for name in segment.reads)
        writes = tuple(self._maps[name] for name in segment.writes)
        asking = self._told if geometry.placed else None

        def made() -> Wrapped:
            found = wrapped()
            write_for_provider(found.model)
            begin_at(found.model, reads, writes, self._at, self._image)
            return found

        made_once = made()
        proto = finished_graph(made_once, asking)
        taken = share_weights(proto, self._weights, self._network.model.graph.initializers)
        contract = Contract(
            model_name=self._network.name,
            geometry=geometry,
            image=made_once.image,
            result=made_once.result,
            memory=self._memory(made(), asking, reads, zoned=zoned),
        )
        return DeployedModel(
            contract=contract,
            graph=proto.SerializeToString(),
            weights=taken,
            no_strips_reason="passes over kept maps run in tiles",
            image_size=self._at.size,
            reads=reads,
            writes=writes,
            reads_image=segment.image,
        )

    def _memory(self, found: Wrapped, asking: Told | None, reads: tuple[KeptMap, ...], *, zoned: bool) -> MemoryModel:
        if zoned:
            over_everything(found.model)
        proto: onnx.ModelProto = finished_graph(found, asking)
        return graph_memory(proto, *sizes_looked_at(self._traced, self._at.size), kept=reads)
