"""A network ready for the walk: its graph, its image input and its result output."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.own_sizes import with_own_sizes
from exactile_converters.geometry.trace import Traced, trace
from exactile_converters.networks.declaration import Declaration
from exactile_converters.onnx_files.untrusted import understood


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageValue:
    """A graph input that takes an image: its axes, and its number of channels."""

    value: ir.Value
    labels: Labels
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network ready for the walk: one image input, one result output, its graph sorted and flat.

    ``inputs`` are the image inputs as exported, each with its channels of the image; several were joined into one.
    ``also`` are further maps that are walked like the result: those of which statistics are computed. ``declared`` is
    what its file declares in addition: how it is fed, and what it returns.
    """

    name: str
    model: ir.Model
    image: ir.Value
    result: ir.Value
    labels: Labels
    channels: int
    inputs: tuple[ImageValue, ...]
    also: tuple[ir.Value, ...] = ()
    declared: Declaration | None = None

    def trace(self) -> Traced:
        """Return the trace. Raises ModelError for a graph that contradicts itself."""
        with understood(self.name):
            return trace(
                self.model, self.image, self.result, labels=self.labels, channels=self.channels, also=self.also
            )

    def with_own_sizes(self, traced: Traced, image_size: tuple[int, int] | None = None) -> Traced:
        """Return ``traced``, this network's trace, with the sizes that it takes unchanged: all, or that of one image.

        ``image_size`` is (height, width). Raises ModelError for a graph that contradicts itself.
        """
        with understood(self.name):
            return with_own_sizes(
                traced,
                self.model,
                self.image,
                self.result,
                labels=self.labels,
                channels=self.channels,
                image_size=image_size,
            )

    def copy(self) -> Network:
        """Return a copy whose graph can be changed independently; weights are shared."""
        model = self.model.clone()
        made = [value for node in model.graph for value in node.outputs]
        values = {value.name: value for value in (*model.graph.inputs, *made)}
        image, result = values[self.image.name], values[self.result.name]
        return replace(
            self, model=model, image=image, result=result, also=tuple(values[value.name] for value in self.also)
        )
