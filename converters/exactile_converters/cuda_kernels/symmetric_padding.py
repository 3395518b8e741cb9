"""Write transposed convolutions with equal padding on both sides of an axis, and crop the rest.

ONNX Runtime's CUDA provider leaves a transposed convolution with other padding to the CPU (TensorFlow and Keras write
it for padding "same"). Padding of a transposed convolution is cropping: so a Slice after it can crop the same rows and
columns, and every remaining pixel is the same sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.sliding import SAME, SPACE

OPEN_END = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a Slice keeps: ``starts`` and ``ends`` of ``axes``; ends are counted from the end, or open."""

    axes: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


def symmetric(pads: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], Cut | None]:
    """Return equal pads for ``pads`` (before, after) of the spatial axes, and what else to crop of the result."""
    equal = [(min(pad), min(pad)) for pad in pads]
    uneven = [axis for axis, (before, after) in enumerate(pads) if before != after]
    if not uneven:
        return equal, None
    more = [(pads[axis][0] - equal[axis][0], pads[axis][1] - equal[axis][1]) for axis in uneven]
    return equal, Cut(
        axes=tuple(axis + SPACE for axis in uneven),
        starts=tuple(before for before, _ in more),
        ends=tuple(-after or OPEN_END for _, after in more),
    )


def write_symmetric_padding(graph: ir.Graph) -> None:
    """Change the transposed convolutions of ``graph`` in place; automatic padding must be written as numbers before."""
    for node in list(graph):
        if node.op_type == "ConvTranspose" and node.domain in ("", "ai.onnx"):
            _write(node, graph)


def _write(node: ir.Node, graph: ir.Graph) -> None:
    amounts = node.attributes.get_ints("pads", ())
    if node.attributes.get_string("auto_pad", "NOTSET") in SAME or "output_shape" in node.attributes or not amounts:
        return
    axes = len(amounts) // 2
    pads, cut = symmetric(list(zip(amounts[:axes], amounts[axes:], strict=True)))
    if cut is None:
        return
    result = node.outputs[0]
    name = result.name or ""
    constants = []
    for part in ("starts", "ends", "axes"):
        value = ir.Value(name=f"{name}_cut_{part}")
        value.const_value = ir.tensor(np.array(getattr(cut, part), np.int64), name=value.name)
        graph.register_initializer(value)
        constants.append(value)
    slice_ = ir.node("Slice", [result, *constants], name=f"{name}_cut")
    cropped = slice_.outputs[0]
    result.replace_all_uses_with(cropped, replace_graph_outputs=True)
    slice_.replace_input_with(0, result)
    graph.insert_after(node, slice_)
    cropped.name, result.name = name, f"{name}_uncut"
    cropped.type, cropped.shape, result.shape = result.type, result.shape, None
    node.attributes["pads"] = ir.AttrInt64s("pads", [before for before, _ in pads] + [after for _, after in pads])
