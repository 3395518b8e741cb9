"""Reorder channels in the graph of networks that take blue, green, red, where images hold red, green, blue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from exactile_converters.networks.network import Network

NAME = "exactile_channel_order"


def blue_first(channels: int, why: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the image's channels in the order of a network that takes blue first, alpha last; and a note about it."""
    order = (2, 1, 0, *range(3, channels))
    note = (
        f"channels of the image are reordered from red, green, blue to blue, green, red: {why} Zeiss documents "
        "that its networks take colours in this order. For one that takes red first: --channels 2,1,0"
    )
    return order, (note + (",3" if channels == 4 else ""),)


def reorder_channels(network: Network, order: tuple[int, ...]) -> None:
    """Give the network channels ``order`` of the image. Changes ``network`` in place."""
    if order in ((), tuple(range(network.channels))):
        return
    image, graph = network.image, network.model.graph
    uses = list(image.uses())
    indices = ir.Value(name=f"{NAME}_indices", const_value=ir.tensor(np.array(order, np.int64)))
    graph.register_initializer(indices)
    node = ir.node("Gather", [image, indices], attributes={"axis": network.labels.index("c")}, name=NAME)
    node.outputs[0].name = NAME
    node.outputs[0].type, node.outputs[0].shape = image.type, image.shape
    for user, index in uses:
        user.replace_input_with(index, node.outputs[0])
    graph.append(node)
    graph.sort()
