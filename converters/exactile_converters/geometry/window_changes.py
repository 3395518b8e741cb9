"""Find what must be written of a pooling window so that every reader of the graph computes the same size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from exactile_converters.geometry.sliding import POOLS, RUNTIME_DOMAIN, SAME, SPACE, Kernel


def pool_changes(node: ir.Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...] | None, bool]:
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
    """Return whether what ``pool_changes`` gives for maps of ``shapes`` also computes the same as before for
    ``others``.

    For transposed convolutions it always does: what they crop does not depend on the size.
    """
    for node in nodes:
        name = node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""
        if node.op_type not in POOLS or node.domain not in ("", RUNTIME_DOMAIN) or name not in shapes:
            continue
        changes = pool_changes(node, shapes[name])
        if changes != pool_changes(node, others[name]) or (changes[1] and _gains_window(node, others[name])):
            return False
    return True


def _gains_window(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Return whether rounding up adds a window along some axis."""
    kernel = Kernel.of(node, node.attributes.get_ints("kernel_shape", ()))
    axes = [(axis, shape[axis + SPACE]) for axis in range(len(kernel.sizes))]
    return any(kernel.rounds_up(*at) and not kernel.drops_last(*at) for at in axes)
