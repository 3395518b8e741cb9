"""The walks over a network for images of each remainder modulo its stride, along each axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import onnx_ir as ir

from exactile.contract.kept_map import KeptMap
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.trace import Traced


@dataclass(frozen=True, slots=True, kw_only=True)
class Walks:
    """Walks ``along`` each axis, by remainder, for images that are cut; graphs are built at ``first``."""

    along: Mapping[Label, Mapping[int, ForwardWalk]]
    first: tuple[int, int]

    @classmethod
    def of(cls, traced: Traced, image_size: tuple[int, int] | None) -> Walks | None:
        """Return those for images of all remainders, or of ``image_size`` only; None where there are none."""
        assert traced.geometry is not None
        along: dict[Label, Mapping[int, ForwardWalk]] = {}
        for index, (axis, base) in enumerate(zip(SPATIAL, (traced.geometry.y, traced.geometry.x), strict=True)):
            wanted = [base, *(base.others or ())]
            if image_size is not None:
                wanted = [base.of_size(image_size[index])]
            walks = {
                one.remainder: traced.walk if one.remainder == base.remainder else traced.own.get((axis, one.remainder))
                for one in wanted
                if not one.one_pass
            }
            along[axis] = {remainder: walk for remainder, walk in walks.items() if walk is not None}
        if not all(along.values()):
            return None
        y, x = (next(iter(along[axis])) for axis in SPATIAL)
        return cls(along=along, first=(y, x))

    def feature(self, name: str, axis: Label, remainder: int | None = None) -> FeatureMap:
        """Return the map ``name`` along ``axis`` for images of ``remainder``, by default the first."""
        known = self.along[axis]
        return known[self.first[SPATIAL.index(axis)] if remainder is None else remainder].features[name]

    def constant(self, name: str, axis: Label, remainder: int | None = None) -> Fraction:
        """Return the pixels that the map has beyond its share of the image's."""
        return self.feature(name, axis, remainder).constant[axis]

    def kept(self, name: str, index: int) -> KeptMap:
        """Return the map ``name`` as the ``index``-th kept map."""
        feature = self.feature(name, "y")
        return KeptMap(
            output=name,
            input=f"exactile_kept_{index}",
            dtype=ir.DataType(feature.dtype).numpy().name,
            shape=tuple(
                None if label in SPATIAL else size for label, size in zip(feature.labels, feature.shape, strict=True)
            ),
            rows_first=feature.labels.index("y") < feature.labels.index("x"),
            scale=(self.feature(name, "y").scale["y"], self.feature(name, "x").scale["x"]),
            constant=(self.constant(name, "y"), self.constant(name, "x")),
        )
