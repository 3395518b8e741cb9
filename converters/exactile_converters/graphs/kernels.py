"""Lower graph nodes to the kernels that ONNX Runtime executes on a CPU, as far as memory is concerned.

On x86 with AVX, ONNX Runtime keeps float images in blocks of 8 or 16 channels ("NCHWc") between convolutions and
poolings, padding the channels up to a full block, and copies to the plain layout where an operator does not support
blocks. The rules follow ``nchwc_transformer.cc`` and were checked against the allocations of version 1.32:

* Conv: blocked output; blocked input from 16 channels on. Stays plain when the filter's input channels are not a
  multiple of 4 or groups do not fill blocks. Depth-wise is blocked.
* MaxPool, AveragePool: blocked when the channels fill blocks.
* Concat over channels: blocked when every part is blocked and fills its blocks.
* Add, Sum, Mul of equal shapes: blocked when all inputs are. An Add of a convolution's result is computed by that
  convolution, in place of the other summand when no other node reads it.
* BatchNormalization: folded into a convolution before it, else a blocked 1x1 convolution when its input is blocked.
* Element-wise with one input: in place; blocked for a few operators.
* Resize by a whole factor, nearest or bilinear: blocked when its input is.
* ConvTranspose: plain, with a column buffer. Everything else: plain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from exactile.contract import BytesForShape
from exactile.contract.statistic import PREFIX
from exactile_converters.graphs.scratch import scratch_of
from exactile_converters.graphs.uses import NOTHING, NodeUse, TensorUse, times

# AVX-512; CPUs without it use 8. The larger block pads more, so the estimate is on the safe side there.
BLOCK_CHANNELS = 16
BLOCKS = (BLOCK_CHANNELS, 8)
"""Block sizes of AVX-512, and of AVX and AVX2."""

# MLAS splits the columns of a plain convolution into pieces of 64 KiB a thread.
PLAIN_CONV_SCRATCH = BytesForShape(0.0, constant=16 * 65536.0)

ALIASES = frozenset({"Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
BLOCKED_UNARY = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"})
FUSED_WITH_CONV = BLOCKED_UNARY | {"Clip", "HardSwish"}
IN_PLACE_UNARY = FUSED_WITH_CONV | {
    "Abs", "Celu", "Elu", "Exp", "Log", "Neg", "Selu", "Softplus", "Softsign", "Sqrt", "ThresholdedRelu",
}  # fmt: skip
BLOCKED_BINARY = frozenset({"Add", "Sum", "Mul"})
BLOCKED_BILINEAR = frozenset({"asymmetric", "align_corners", "half_pixel"})


@dataclass(slots=True, kw_only=True, eq=False)
class Kernel:
    """One call. Buffers are indices; ``order`` is the node's position and -1, 0 or 1 for copies around it."""

    order: tuple[int, int]
    reads: list[int]
    writes: list[int]
    scratch: tuple[BytesForShape, ...] = ()
    in_place_of: int | None = None  # a buffer that is read and taken over by the written one, if not read later
    accepts_sum: bool = False  # a blocked convolution that can still absorb an Add
    accepts_activation: bool = False


@dataclass(slots=True, kw_only=True)
class Lowering:
    """The state of one pass over the nodes."""

    tensors: dict[str, TensorUse]
    readers: dict[str, list[NodeUse]]
    bound: frozenset[str]  # graph inputs and outputs: the caller's arrays
    block: int = BLOCK_CHANNELS
    kernels: list[Kernel] = field(default_factory=list)
    sizes: list[BytesForShape] = field(default_factory=list)
    plain: dict[str, int] = field(default_factory=dict)
    blocked: dict[str, int] = field(default_factory=dict)
    made_blocked: set[str] = field(default_factory=set)  # without those that are only copied into blocks
    producer: dict[str, Kernel] = field(default_factory=dict)
    foldable: set[str] = field(default_factory=set)  # results of convolutions into which a normalisation can be folded

    def images(self, node: NodeUse) -> list[str]:
        """Return the inputs that depend on the image."""
        return [name for name in node.inputs if name in self.tensors]

    def channels(self, name: str) -> int:
        return self.tensors[name].channels

    def only_reader(self, name: str) -> NodeUse | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.bound else None

    def new_plain(self, name: str) -> int:
        self.sizes.append(NOTHING if name in self.bound or name not in self.tensors else self.tensors[name].bytes)
        self.plain[name] = len(self.sizes) - 1
        return self.plain[name]

    def new_blocked(self, name: str) -> int:
        tensor = self.tensors[name]
        padded = -(-tensor.channels // self.block) * self.block
        self.sizes.append(times(tensor.bytes, padded / tensor.channels))
        self.blocked[name] = len(self.sizes) - 1
        return self.blocked[name]

    def plain_buffer(self, name: str) -> int:
        """Return the plain copy of a tensor; made right after its producer when only a blocked one exists."""
        if name not in self.plain:
            if name not in self.blocked:
                raise ValueError(f"tensor {name!r} is read, but no earlier node writes it")
            order = (self.producer[name].order[0], 1)
            self.kernels.append(Kernel(order=order, reads=[self.blocked[name]], writes=[self.new_plain(name)]))
        return self.plain[name]

    def blocked_buffer(self, name: str, position: int) -> int:
        """Return the blocked copy of a tensor; made right before the first node that wants it."""
        if name not in self.blocked:
            source = self.plain_buffer(name)
            self.kernels.append(Kernel(order=(position, -1), reads=[source], writes=[self.new_blocked(name)]))
        return self.blocked[name]

    def emit_plain(self, node: NodeUse, position: int, *scratch: BytesForShape) -> Kernel:
        reads = [self.plain_buffer(name) for name in self.images(node)]
        writes = [self.new_plain(name) for name in node.outputs if name]
        return self._emit(node, Kernel(order=(position, 0), reads=reads, writes=writes, scratch=scratch))

    def emit_blocked(self, node: NodeUse, position: int, reads: list[int]) -> Kernel:
        writes = [self.new_blocked(node.outputs[0])]
        return self._emit(node, Kernel(order=(position, 0), reads=reads, writes=writes))

    def _emit(self, node: NodeUse, kernel: Kernel) -> Kernel:
        self.kernels.append(kernel)
        self.producer.update(dict.fromkeys(node.outputs, kernel))
        return kernel

    def fuse(self, node: NodeUse, source: str) -> None:
        """Make the kernel of ``source`` write the node's output instead, in the same buffer."""
        for buffers in (self.plain, self.blocked):
            if source in buffers:
                buffers[node.outputs[0]] = buffers[source]
        self.producer[node.outputs[0]] = self.producer[source]


def lower(
    *, tensors: Sequence[TensorUse], nodes: Sequence[NodeUse], inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[list[Kernel], list[BytesForShape]]:
    """Return the kernels in execution order, and the size of each buffer by its index.

    Raises ValueError when a tensor is read before it is written.
    """
    state = _follow(tensors, nodes, inputs, outputs)
    for name in outputs:
        state.plain_buffer(name)
    return sorted(state.kernels, key=lambda kernel: kernel.order), state.sizes


def blocked_maps(
    *, tensors: Sequence[TensorUse], nodes: Sequence[NodeUse], inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, int]:
    """Return the tensors that are made in blocks of channels on some CPU, with the largest block."""
    found: dict[str, int] = {}
    for block in BLOCKS:
        for name in _follow(tensors, nodes, inputs, outputs, block).made_blocked:
            found.setdefault(name, block)
    return found


def _follow(
    tensors: Sequence[TensorUse],
    nodes: Sequence[NodeUse],
    inputs: Sequence[str],
    outputs: Sequence[str],
    block: int = BLOCK_CHANNELS,
) -> Lowering:
    readers: dict[str, list[NodeUse]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    by_name = {tensor.name: tensor for tensor in tensors}
    state = Lowering(tensors=by_name, readers=readers, bound=frozenset(inputs) | frozenset(outputs), block=block)
    for name in inputs:
        state.new_plain(name)
    for position, node in enumerate(nodes):
        rule = RULES.get(node.op, _unary if node.op in IN_PLACE_UNARY else _plain)
        rule(state, node, position)
        state.made_blocked.update(name for name in node.outputs if name in state.blocked)
    return state


def _plain(state: Lowering, node: NodeUse, position: int) -> None:
    own = (node.scratch,) if node.scratch != NOTHING else ()
    state.emit_plain(node, position, *scratch_of(node, state.tensors), *own)


def _alias(state: Lowering, node: NodeUse, position: int) -> None:
    kernel = state.emit_plain(node, position)
    kernel.in_place_of = next(iter(kernel.reads), None)
    if kernel.in_place_of is not None and node.outputs[0] not in state.bound:  # a view, whatever else reads the source
        state.kernels.remove(kernel)
        state.plain[node.outputs[0]] = kernel.in_place_of


def _conv(state: Lowering, node: NodeUse, position: int) -> None:
    source, output = node.inputs[0], node.outputs[0]
    state.foldable.add(output)
    if not (len(node.weight_shape) == 4 and state.channels(output) and _filter_fits_blocks(node, state.block)):
        state.emit_plain(node, position, PLAIN_CONV_SCRATCH)
        return
    thin = node.weight_shape[1] < state.block and node.whole_number("group", 1) == 1
    read = state.plain_buffer(source) if thin else state.blocked_buffer(source, position)
    kernel = state.emit_blocked(node, position, [read])
    kernel.accepts_sum = kernel.accepts_activation = True


def _filter_fits_blocks(node: NodeUse, block: int) -> bool:
    out_channels, group_channels = node.weight_shape[:2]
    group = node.whole_number("group", 1)
    if group == 1:
        return group_channels < block or group_channels % 4 == 0
    if group_channels == 1 and out_channels == group:
        return True
    return group_channels % block == 0 and out_channels // group % block == 0


UNKNOWN_COLUMNS = 4
"""Largest ratio of a transposed convolution's products to its output: a kernel of up to twice the stride."""


def _conv_transpose(state: Lowering, node: NodeUse, position: int) -> None:
    source = state.tensors[node.inputs[0]]
    if len(node.weight_shape) != 4 or not source.channels:  # another precision: its filter is made from another type
        state.emit_plain(node, position, times(state.tensors[node.outputs[0]].bytes, UNKNOWN_COLUMNS))
        return
    columns = node.weight_shape[1] * node.weight_shape[2] * node.weight_shape[3]  # C/group * kh * kw, a group at a time
    state.emit_plain(node, position, times(source.bytes, columns / source.channels))
    state.foldable.add(node.outputs[0])


def _batch_norm(state: Lowering, node: NodeUse, position: int) -> None:
    source = node.inputs[0]
    if any(name.startswith(PREFIX) for name in node.inputs):  # by statistics that are inputs: nothing to fuse
        state.emit_plain(node, position)
    elif source in state.foldable and state.only_reader(source) is node:
        state.fuse(node, source)
    elif source in state.blocked:
        kernel = state.emit_blocked(node, position, [state.blocked[source]])
        kernel.accepts_sum = kernel.accepts_activation = True
    else:
        state.emit_plain(node, position)


def _pool(state: Lowering, node: NodeUse, position: int) -> None:
    source, channels = node.inputs[0], state.channels(node.inputs[0])
    if channels and channels % state.block == 0 and len(node.outputs) == 1:
        state.emit_blocked(node, position, [state.blocked_buffer(source, position)])
    else:
        state.emit_plain(node, position)


def _concat(state: Lowering, node: NodeUse, position: int) -> None:
    full = all(name in state.blocked and state.channels(name) % state.block == 0 for name in node.inputs)
    if full and node.whole_number("axis", 1) == 1:
        state.emit_blocked(node, position, [state.blocked[name] for name in node.inputs])
    else:
        state.emit_plain(node, position)


def _resize(state: Lowering, node: NodeUse, position: int) -> None:
    source, output = state.tensors[node.inputs[0]], state.tensors[node.outputs[0]]
    mode = node.attributes.get("mode", "nearest")
    coordinates = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    nearest = node.attributes.get("nearest_mode", "round_prefer_floor")
    knows_blocks = (mode == "nearest" and coordinates == "asymmetric" and nearest == "floor") or (
        mode == "linear" and coordinates in BLOCKED_BILINEAR
    )
    whole_factor = source.bytes.area and (output.bytes.area / source.bytes.area).is_integer()
    if knows_blocks and whole_factor and source.name in state.blocked:
        state.emit_blocked(node, position, [state.blocked[source.name]])
    else:
        state.emit_plain(node, position)


def _transpose(state: Lowering, node: NodeUse, position: int) -> None:
    source = node.inputs[0]
    if node.attributes.get("perm") == (0, 2, 3, 1) and source in state.blocked:
        state.plain.setdefault(source, state.blocked[source])  # the copy to the plain layout also transposes
        kernel = state.emit_plain(node, position)
        kernel.reads[:] = [state.blocked[source]]
        if state.plain[source] == state.blocked[source]:
            del state.plain[source]
    else:
        state.emit_plain(node, position)


def _softmax(state: Lowering, node: NodeUse, position: int) -> None:
    # Over the last axis it works in place; over another one, it transposes back and forth through two more arrays.
    output = state.tensors[node.outputs[0]].bytes
    last = node.attributes.get("axis", -1) == -1
    kernel = state.emit_plain(node, position, *(() if last else (output, output)))
    if last:
        kernel.in_place_of = next(iter(kernel.reads), None)


def _unary(state: Lowering, node: NodeUse, position: int) -> None:
    source, output = node.inputs[0], node.outputs[0]
    maker = state.producer.get(source)
    if _is_silu_gate(state, node):
        state.fuse(node, source)  # never read: the Mul reads its other input twice
    elif (
        maker is not None
        and maker.accepts_activation
        and state.only_reader(source) is node
        and (node.op in FUSED_WITH_CONV)
    ):
        maker.accepts_activation = maker.accepts_sum = False
        state.fuse(node, source)
    elif node.op in BLOCKED_UNARY and source in state.blocked and output not in state.bound:
        kernel = state.emit_blocked(node, position, [state.blocked[source]])
        kernel.in_place_of = state.blocked[source]
    else:
        kernel = state.emit_plain(node, position)
        kernel.in_place_of = kernel.reads[0]


def _is_silu_gate(state: Lowering, node: NodeUse) -> bool:
    """Return whether this Sigmoid(x) only serves x * Sigmoid(x), which one kernel computes in either layout."""
    reader = state.only_reader(node.outputs[0])
    return node.op == "Sigmoid" and reader is not None and reader.op == "Mul" and node.inputs[0] in reader.inputs


def _binary(state: Lowering, node: NodeUse, position: int) -> None:
    images = state.images(node)
    same = len({(state.channels(name), state.tensors[name].bytes) for name in images}) == 1
    if len(images) != len(node.inputs) or not same or not all(name in state.blocked for name in images):
        state.emit_plain(node, position)
        return
    reads = [state.blocked[name] for name in images]
    if node.op != "Mul" and len(images) == 2:
        for name, other in ((images[0], images[1]), (images[1], images[0])):
            maker = state.producer[name]
            if maker.accepts_sum and state.only_reader(name) is node:
                maker.accepts_sum = False
                maker.order = (position, 0)  # it now waits for the other summand
                maker.reads.append(state.blocked[other])
                maker.in_place_of = state.blocked[other]
                state.fuse(node, name)
                return
    state.emit_blocked(node, position, reads)


Rule = Callable[[Lowering, NodeUse, int], None]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ALIASES, _alias),
    **dict.fromkeys(BLOCKED_BINARY, _binary),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "LogSoftmax": _softmax,
    "MaxPool": _pool,
    "Resize": _resize,
    "Softmax": _softmax,
    "Transpose": _transpose,
    "Upsample": _resize,
}
