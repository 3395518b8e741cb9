"""Input and output inside the graph: image samples as stored go in, labels (or maps) come out.

``image (H, W, C)`` -> ``(sample / scale - mean) / std`` in float32 -> network -> ``result`` ((H, W) labels, or (C, H,
W) maps), so that one byte a sample goes in and one byte a pixel comes back.

Where the normalisation needs statistics of the whole image, it is ``(sample - offset) / scale`` with two constants that
``statistics_as_inputs`` turns into inputs once the graph is complete: until then they are ordinary constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx
import onnx_ir as ir

from exactile.contract import ImageInput, ImageStatistics, ResultOutput
from exactile.contract.statistic import PREFIX
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.trace import ancestors
from exactile_converters.graphs.image_in import IMAGE, IMAGE_TYPES, image_ranges, prepend_image
from exactile_converters.graphs.interval import UNKNOWN, Interval
from exactile_converters.graphs.ranges import find_ranges
from exactile_converters.graphs.result_out import RESULT, MapDtype, ResultTail, ResultWish
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization

__all__ = ["IMAGE", "IMAGE_TYPES", "RESULT", "MapDtype", "Normalization", "ResultWish", "Wrapped", "wrap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A network with its input and output inside: its graph, inputs and outputs.

    ``ranges`` are those of its values, by name, as far as they were computed. ``processor`` is the CPU architecture
    whose arithmetic the graph contains, empty except with reduced precision.
    """

    model: ir.Model
    image: ImageInput
    result: ResultOutput
    ranges: Mapping[str, Interval] = field(default_factory=dict)
    processor: str = ""


def wrap(
    network: Network,
    features: Mapping[str, FeatureMap],
    *,
    image_dtype: str,
    normalization: Normalization,
    wish: ResultWish,
    ranges: Mapping[str, Interval] = MappingProxyType({}),
) -> Wrapped:
    """Wrap ``network`` in place. ``features`` are its traced feature maps, ``ranges`` the known ones by name.

    Raises OptionError, ModelError, ChannelError.
    """
    normalization.check_channels(network.channels)
    image = prepend_image(network, image_dtype, normalization)
    graph = network.model.graph
    graph.sort()
    nodes = ancestors(network.model, network.result)
    known = image_ranges(image_dtype, normalization.statistics)
    known |= {name: UNKNOWN for name in graph.initializers if name.startswith(PREFIX)}
    found = find_ranges(nodes, {**known, **ranges}, features)
    result, spec = ResultTail(network, features, found, wish).append()
    graph.inputs[:] = [image]
    graph.outputs[:] = [result]
    for node in graph:
        for value in node.outputs:
            if value is not result:
                value.shape = None  # shapes written for the old input would contradict the tile's
    kept = set(ancestors(network.model, result))
    graph.remove([node for node in graph if node not in kept], safe=True)
    graph.sort()
    return Wrapped(
        model=network.model,
        image=ImageInput(name=IMAGE, dtype=image_dtype, channels=network.channels, statistics=normalization.statistics),
        result=spec,
        ranges=found,
    )


def statistics_as_inputs(model: onnx.ModelProto, statistics: ImageStatistics | None) -> None:
    """Turn statistics of the whole image, so far constants, into inputs of a finished graph.

    They are offset and scale of the image, and the network's statistics of its feature maps.
    """
    names = (statistics.offset_name, statistics.scale_name) if statistics is not None else ()
    read = {name for node in model.graph.node for name in node.input}
    for tensor in list(model.graph.initializer):
        if tensor.name not in names and not tensor.name.startswith(PREFIX):
            continue
        if tensor.name in read:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        model.graph.initializer.remove(tensor)
