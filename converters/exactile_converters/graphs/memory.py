"""Compute how much memory a network needs at a tile shape, from its graph before anything runs.

Three steps, each in its own file:

1. ``kernels.py``: what ONNX Runtime executes. Which nodes are fused, which tensors are kept in the channel-blocked
   layout and padded for it, which copies between layouts appear, which kernels need scratch memory.
2. ``liveness.py``: buffers exist from the kernel that writes them until after the last kernel that reads them.
3. ``arena.py``: where the allocator places them, which includes fragmentation.

The result holds for the session options of ``exactile.engines.onnx_runtime``, which make ONNX Runtime allocate in
exactly this way: one region, no recycling of buffers planned ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exactile.contract import BytesForShape, MemoryModel
from exactile.engines.arena import RESIDENT_PER_USED_BYTE
from exactile_converters.graphs.arena import footprints
from exactile_converters.graphs.kernels import lower
from exactile_converters.graphs.liveness import allocation_events
from exactile_converters.graphs.uses import NodeUse, TensorUse, times

__all__ = ["NodeUse", "TensorUse", "memory_model"]

# Resident per byte of constants once a session exists: the serialised graph (the runtime keeps a reference to it), the
# constants, and re-ordered or packed copies. Measured: 2.17 at 31 M parameters. While loading, the parsed graph and the
# copies being made exist as well: measured 4.1 to 4.3.
RESIDENT_PER_CONSTANT_BYTE = 2.2
LOADING_PER_CONSTANT_BYTE = 4.6

# Cost of a session independent of its weights: the runtime's code at its first use, thread stacks, kernel tables; and
# for each node its attributes and kernel. Measured: 11 to 13 MiB, and 15 with 250 nodes.
SESSION_BYTES = 14 << 20
NODE_BYTES = 16 << 10

# Placement depends on sizes, so it is computed at several shapes: small, large, strips.
REFERENCE_SHAPES = ((256, 256), (512, 512), (1024, 1024), (2048, 2048), (512, 1024), (256, 4096), (128, 16384))


def memory_model(
    *,
    tensors: Sequence[TensorUse],
    nodes: Sequence[NodeUse],
    inputs: Sequence[str],
    outputs: Sequence[str],
    constant_bytes: int,
    shapes: Sequence[tuple[int, int]] = REFERENCE_SHAPES,
) -> MemoryModel:
    """Return the memory that one session of ONNX Runtime needs for the graph, in addition to the process itself.

    ``nodes`` are in execution order. Graph ``inputs`` and ``outputs`` are bound to the caller's arrays and are not
    counted. ``constant_bytes`` is the size of all initialisers. The result is for tiles about as large as ``shapes``,
    (height, width) each.

    In the result, ``weights_bytes`` includes the serialised graph and the session itself. ``activation_bytes`` is what
    the arena takes at a tile shape, including its own table, or, where that is larger, what loading needs beyond
    ``weights_bytes``.

    Raises ValueError when a tensor is read that no earlier node writes.
    """
    kernels, sizes = lower(tensors=tensors, nodes=nodes, inputs=inputs, outputs=outputs)
    events = allocation_events(kernels, sizes)
    loading = constant_bytes * (LOADING_PER_CONSTANT_BYTE - RESIDENT_PER_CONSTANT_BYTE)
    steps = [BytesForShape(0.0, constant=loading)]
    for height, width in shapes:
        ends = footprints(events, height=height, width=width)
        steps += [times(end, RESIDENT_PER_USED_BYTE) for end in ends]
    resident = constant_bytes * RESIDENT_PER_CONSTANT_BYTE + SESSION_BYTES + NODE_BYTES * len(nodes)
    elements = pareto(tensor.elements for tensor in tensors)
    return MemoryModel(weights_bytes=int(resident), steps=pareto(steps), elements=elements)


def pareto(steps: Iterable[BytesForShape]) -> tuple[BytesForShape, ...]:
    """Drop every step that another one reaches in all four coefficients: it can never be the only largest one."""
    kept: list[BytesForShape] = []
    for step in sorted(set(steps), reverse=True):  # whatever dominates a step is sorted before it
        if not any(
            step.row <= other.row and step.column <= other.column and step.constant <= other.constant for other in kept
        ):
            kept.append(step)
    return tuple(kept)
