"""Find the cause of an obstacle whose own rule sees only a symptom."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import onnx_ir as ir

from exactile_converters.geometry.obstacle import Obstacle, ObstacleError, obstacle_at
from exactile_converters.geometry.probe import Probe
from exactile_converters.obstacles.attention import ASKING
from exactile_converters.obstacles.unknown_shapes import stored_for_one_size, unknown_since

KEEPS_PIXELS = {"Cast", "Dropout", "Identity", "LeakyRelu", "Relu", "Sigmoid"}
MOST_NODES = 100
"""Most nodes of arithmetic on sizes that are visited."""

SMALLEST_WINDOW = 4
"""Smallest side, in pixels, of a pooling window that is taken for one over the whole map."""


def with_cause(
    node: ir.Node, found: Obstacle, probes: Sequence[Probe], maps: AbstractSet[ir.Value]
) -> tuple[ir.Node, Obstacle]:
    """Return the node and the obstacle that cause ``found``, an obstacle at ``node``.

    ``probes`` are those of two image sizes, and ``maps`` the values that are computed from the image's pixels.
    """
    if found.unknown_input is not None:
        value = node.inputs[found.unknown_input]
        origin = unknown_since(value, probes, maps) if value is not None else None
        if origin is not None:
            at, cause = origin
            return at, replace(obstacle_at(at, cause), consequences=(found,))
    error = (
        (stored_for_one_size(node, probes) if found.sizes_differ else None)
        or (rolled(node) if node.op_type == "Slice" else None)
        or (padded_to_multiple(node) if node.op_type == "Pad" and "changes with" in found.reason else None)
        or (pooled_at_one_size(node) if node.op_type in {"Flatten", "Reshape"} else None)
    )
    return node, found if error is None else replace(found, reason=error.reason, remedy=error.remedy)


def rolled(node: ir.Node) -> ObstacleError | None:
    """Return the cause if ``node`` cuts off what a Concat puts at the other end of the image."""
    source = node.inputs[0]
    for reader, _ in node.outputs[0].uses():
        parts = [value.producer() for value in reader.inputs if value is not None]
        if reader.op_type == "Concat" and any(
            part is not None and part is not node and part.op_type == "Slice" and part.inputs[0] is source
            for part in parts
        ):
            return ObstacleError(
                "it moves rows or columns from one end of the image to the other (a cyclic shift, as for shifted "
                "windows), so that pixels at opposite edges meet",
                "Export with dynamic height and width, so that the shift takes all rows of any image; "
                "or run the whole image at once",
            )
    return None


def padded_to_multiple(node: ir.Node) -> ObstacleError | None:
    """Return the cause if the padding fills a size up to a multiple of a number."""
    waiting, seen = list(node.inputs[1:2]), 0
    while waiting and seen < MOST_NODES:
        value = waiting.pop(0)
        maker = value.producer() if value is not None else None
        if maker is None or maker.op_type in ASKING:
            continue
        seen += 1
        step = maker.inputs[1].const_value if maker.op_type == "Mod" and maker.inputs[1] is not None else None
        if step is not None and step.size == 1:
            return ObstacleError(
                f"it pads the map to a multiple of {int(step.numpy().ravel()[0])} pixels (as for windows of that "
                "size), so that the amount of padding changes with the image size",
                "Pad outside of the network, and export it without",
            )
        waiting += maker.inputs
    return None


def pooled_at_one_size(node: ir.Node) -> ObstacleError | None:
    """Return the cause if ``node`` flattens the result of pooling with windows as large as the exported map."""
    maker = node.inputs[0].producer() if node.inputs[0] is not None else None
    while maker is not None and maker.op_type in KEEPS_PIXELS and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    if maker is None or maker.op_type not in {"AveragePool", "MaxPool"}:
        return None
    sides = tuple(maker.attributes.get_ints("kernel_shape", ()))
    if len(sides) != 2 or min(sides) < SMALLEST_WINDOW or any(maker.attributes.get_ints("pads", (0,))):
        return None
    return ObstacleError(
        f"it flattens rows and columns of what {maker.op_type} {maker.name!r} makes of windows of {sides[0]} x "
        f"{sides[1]} pixels: this was pooling over the whole map for the one size that the network was exported at",
        "Pool by a mean over height and width, or adaptively to 1 x 1, which takes any size, and export again",
    )
