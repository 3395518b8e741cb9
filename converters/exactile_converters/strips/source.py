"""The source of strip graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.feature_maps import ForwardWalk, ImageSizes
from exactile_converters.geometry.probe import Memory
from exactile_converters.graphs.kernels import blocked_maps
from exactile_converters.graphs.memory_records import node_use, tensor_use
from exactile_converters.graphs.uses import NodeUse
from exactile_converters.placed.find import at_all_places
from exactile_converters.placed.told import Told
from exactile_converters.strips.frontier import Frontiers


@dataclass(frozen=True, slots=True, kw_only=True)
class StripSource:
    """A sorted graph with one image input, its frontiers, and the image sizes at which it was walked.

    ``blocked`` are the maps that a whole pass keeps in blocks, with the channels of a block. ``large`` are
    constants that strip graphs store outside; ``memory`` is that of probes of the graph.
    """

    model: ir.Model
    frontiers: Frontiers
    sizes: ImageSizes
    image: ir.Value
    result: ir.Value
    blocked: Mapping[str, int]
    told: Told = field(default_factory=Told)
    large: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)
    memory: Memory = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        *,
        model: ir.Model,
        walk: ForwardWalk,
        nodes: Sequence[ir.Node],
        sizes: ImageSizes,
        remainder: int,
        image: ir.Value,
        result: ir.Value,
        told: Told | None = None,
        large: Mapping[str, NDArray[Any]] | None = None,
        memory: Memory | None = None,
    ) -> StripSource:
        """Return the source; ``remainder`` is that of accepted heights. Raises StripError."""
        told = told or Told()
        for node, found in told.placed.items():
            if node in walk.transfers:
                walk.transfers[node] = at_all_places(walk.transfers[node], found)
        frontiers = Frontiers(walk, nodes, remainder)
        return cls(
            model=model,
            frontiers=frontiers,
            sizes=sizes,
            image=image,
            result=result,
            told=told,
            large=large or {},
            memory=memory if memory is not None else {},
            blocked=blocked_maps(
                tensors=[tensor_use(feature) for feature in walk.features.values()],
                nodes=[_use(node, plain=node in told.placed) for node in frontiers.nodes],
                inputs=[image.name or ""],
                outputs=[result.name or ""],
            ),
        )


def _use(node: ir.Node, *, plain: bool) -> NodeUse:
    """Return the use of a node; ``plain`` marks operators that are rewritten, and then pass on no blocks."""
    use = node_use(node)
    return replace(use, op="Gather") if plain else use
