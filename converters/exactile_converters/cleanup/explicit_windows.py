"""Write sliding windows so that ONNX's shape inference and ONNX Runtime compute the same sizes.

ONNX Runtime folds the sizes that shape inference claims into constants when it opens an engine, and then computes
others. At the sizes that a network accepts, both agree if automatic padding is written as numbers, and if a size whose
rounding up has no effect is rounded down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from exactile_converters.geometry.sliding import POOLS, RUNTIME_DOMAIN, SAME, SPACE, Kernel, output_padding
from exactile_converters.geometry.trace import Traced
from exactile_converters.geometry.window_changes import pool_changes


def write_windows(traced: Traced) -> None:
    """Change the nodes of a tileable graph in place; at accepted sizes it computes the same as before."""
    write_windows_at(traced.nodes, {name: feature.shape for name, feature in traced.features.items()})


def write_windows_at(nodes: Iterable[ir.Node], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Change ``nodes`` in place; where feature maps have these ``shapes``, by name, they compute the same as before."""
    for node in nodes:
        source = node.inputs[0] if node.inputs else None
        shape = shapes.get(source.name or "") if source is not None else None
        if shape is None or node.domain not in ("", RUNTIME_DOMAIN):
            continue
        if node.op_type == "ConvTranspose":
            _write_transposed(node, shape)
        elif node.op_type in POOLS:
            _write_pool(node, shape)


def _write_transposed(node: ir.Node, shape: tuple[int, ...]) -> None:
    weight = node.inputs[1]
    if node.attributes.get_string("auto_pad", "NOTSET") not in SAME or "output_shape" in node.attributes:
        return
    if weight is None or weight.const_value is None:
        return
    sizes = tuple(int(size) for size in weight.const_value.shape.numpy()[SPACE:])
    kernel, axes = Kernel.of(node, sizes), len(sizes)
    placed = [
        kernel.transposed(axis, shape[axis + SPACE], output_padding(node, axis, axes), None) for axis in range(axes)
    ]
    _set_pads(node, [one.before for one in placed] + [one.after for one in placed])


def _write_pool(node: ir.Node, shape: tuple[int, ...]) -> None:
    pads, rounds_down = pool_changes(node, shape)
    if pads is not None:
        _set_pads(node, list(pads))
    if rounds_down:
        del node.attributes["ceil_mode"]


def _set_pads(node: ir.Node, pads: list[int]) -> None:
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
