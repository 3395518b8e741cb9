"""What strip graphs are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import ForwardWalk, ImageSizes
from exactile_converters.graphs.kernels import blocked_maps
from exactile_converters.graphs.memory_records import node_use, tensor_use
from exactile_converters.strips.frontier import Frontiers


@dataclass(frozen=True, slots=True, kw_only=True)
class StripSource:
    """A sorted graph with one image input, its frontiers, and the image sizes that it was walked at.

    ``blocked`` are the maps that kernels of a whole pass hand on in the blocked layout.
    """

    model: ir.Model
    frontiers: Frontiers
    sizes: ImageSizes
    image: ir.Value
    result: ir.Value
    blocked: frozenset[str]

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
    ) -> StripSource:
        """``remainder`` is that of accepted heights. Raises StripError."""
        frontiers = Frontiers(walk, nodes, remainder)
        return cls(
            model=model,
            frontiers=frontiers,
            sizes=sizes,
            image=image,
            result=result,
            blocked=blocked_maps(
                tensors=[tensor_use(feature) for feature in walk.features.values()],
                nodes=[node_use(node) for node in frontiers.nodes],
                inputs=[image.name or ""],
                outputs=[result.name or ""],
            ),
        )
