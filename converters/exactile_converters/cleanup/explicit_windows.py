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
    pads, rounds_down = _pool_changes(node, shape)
    if pads is not None:
        _set_pads(node, list(pads))
    if rounds_down:
        del node.attributes["ceil_mode"]


def _pool_changes(node: ir.Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...] | None, bool]:
    """Return the pads to write as numbers, if any, and whether sizes that are rounded up must be rounded down."""
    kernel = Kernel.of(node, node.attributes.get_ints("kernel_shape", ()))
    axes = len(kernel.sizes)
    placed = [kernel.placed(axis, shape[axis + SPACE]) for axis in range(axes)]
    pads = (*(one.before for one in placed), *(one.after for one in placed))
    written = pads if kernel.auto_pad in SAME and max(kernel.dilations) > 1 and min(pads) >= 0 else None
    # Automatic padding of windows without dilation leaves nothing to round. Where the stride is larger than the kernel,
    # this padding is negative; shape inference takes it for 0, and would round up.
    idle = kernel.ceil and kernel.auto_pad in SAME and max(kernel.dilations) == 1
    return written, idle or any(kernel.drops_last(axis, shape[axis + SPACE]) for axis in range(axes))


def written_alike(
    nodes: Iterable[ir.Node], shapes: Mapping[str, tuple[int, ...]], others: Mapping[str, tuple[int, ...]]
) -> bool:
    """Return whether what ``write_windows_at`` writes for maps of ``shapes`` also computes the same as before for
    ``others``.

    For transposed convolutions it always does: what they crop does not depend on the size.
    """
    for node in nodes:
        name = node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""
        if node.op_type not in POOLS or node.domain not in ("", RUNTIME_DOMAIN) or name not in shapes:
            continue
        changes = _pool_changes(node, shapes[name])
        if changes != _pool_changes(node, others[name]) or (changes[1] and _gains_window(node, others[name])):
            return False
    return True


def _gains_window(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Return whether rounding up adds a window along some axis."""
    kernel = Kernel.of(node, node.attributes.get_ints("kernel_shape", ()))
    axes = [(axis, shape[axis + SPACE]) for axis in range(len(kernel.sizes))]
    return any(kernel.rounds_up(*at) and not kernel.drops_last(*at) for at in axes)


def _set_pads(node: ir.Node, pads: list[int]) -> None:
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
