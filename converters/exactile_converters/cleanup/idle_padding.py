"""Leave out padding behind the pixels that a pooling window never needs.

Where sizes are rounded up, ONNX Runtime omits windows that would begin behind the pixels, but ONNX's shape inference
counts them. With ``e`` pixels from a window's first tap to its last and stride ``s``, this cannot happen with at most
``e - s`` pixels of padding behind; padding beyond that adds no further window. So where padding does not contribute to
the values, what is beyond is removed, and sizes agree for images of every size.
"""

from __future__ import annotations

import onnx_ir as ir

from exactile_converters.geometry.sliding import Kernel


def leave_out_idle_padding(model: ir.Model) -> None:
    """Shorten the padding of all pooling windows of ``model`` that round up; what they compute stays the same."""
    for node in model.graph:
        if node.domain or node.op_type not in {"MaxPool", "AveragePool"}:
            continue
        if node.attributes.get_int("count_include_pad", 0) or node.attributes.get_int("ceil_mode", 0) == 0:
            continue
        kernel = Kernel.of(node, node.attributes.get_ints("kernel_shape", ()))
        axes = len(kernel.sizes)
        needed = [kernel.extent(axis) - kernel.strides[axis] for axis in range(axes)]
        after = kernel.pads[axes:]
        shortened = [min(pad, need) if need >= 0 else pad for pad, need in zip(after, needed, strict=True)]
        if kernel.auto_pad == "NOTSET" and shortened != list(after):
            node.attributes["pads"] = ir.AttrInt64s("pads", [*kernel.pads[:axes], *shortened])
