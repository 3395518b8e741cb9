"""Check a model file, which may be damaged or malicious, before anything is computed or allocated from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import onnx
from onnx import TensorProto, helper

from exactile.errors import ExactileError, ModelError

LARGEST_WEIGHTS_BYTES = 2 << 30
"""Most bytes of all weights together: what one ONNX file can hold."""

LONGEST_DETAIL = 300
"""Most characters of a foreign message that are passed on."""

MOST_DIMENSIONS = 8

STEPS = frozenset(("strides", "dilations", "kernel_shape", "pads", "output_padding"))
LARGEST_STEP = 1 << 16
"""Largest kernel, stride, dilation and pad in pixels."""

MOST_NODES = 200_000
"""Most nodes of the graph after its local functions are inlined."""


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Turn any error that a contradictory graph raises into a ModelError of one line.

    A checked graph may still hold values whose types and ranks do not fit their operators; libraries that walk it then
    raise almost anything (IndexError, TypeError, their own errors).
    """
    try:
        yield
    except (ExactileError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{name}: the graph contradicts itself ({type(error).__name__}: {one_line(error)}); export it again"
        ) from error


def one_line(error: Exception) -> str:
    """Return the beginning of a foreign message, printable."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:LONGEST_DETAIL] if lines else type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def check_tensors(proto: onnx.ModelProto, name: str, folder: Path | None) -> None:
    """Check that every stored tensor holds what its shape claims, and that external data lies wholly in its file."""
    total = 0
    for tensor in tensors(proto):
        claimed = _claimed_bytes(tensor, name)
        total += claimed or 0
        if total > LARGEST_WEIGHTS_BYTES:
            raise ModelError(
                f"{name}: its tensors claim more than {LARGEST_WEIGHTS_BYTES} bytes (at {tensor.name!r}, of "
                f"{_sizes(tensor)}), which is more than an ONNX model can hold"
            )
        if tensor.data_location == TensorProto.EXTERNAL:
            if folder is not None and claimed is not None:
                _check_external(tensor, claimed, name, folder)
        elif claimed is not None and tensor.HasField("raw_data") and len(tensor.raw_data) != claimed:
            raise ModelError(
                f"{name}: tensor {tensor.name!r} of {_sizes(tensor)} holds {len(tensor.raw_data)} bytes where its "
                f"shape claims {claimed}"
            )
        elif not tensor.HasField("raw_data") and math.prod(tensor.dims) > 8 * tensor.ByteSize():
            raise ModelError(
                f"{name}: tensor {tensor.name!r} holds {tensor.ByteSize()} bytes where its shape claims "
                f"{math.prod(tensor.dims)} elements"
            )


def _sizes(tensor: TensorProto) -> str:
    """Return the first dimensions: there may be thousands."""
    first = ", ".join(map(str, tensor.dims[:MOST_DIMENSIONS]))
    return f"[{first}, ...]" if len(tensor.dims) > MOST_DIMENSIONS else f"[{first}]"


def _claimed_bytes(tensor: TensorProto, name: str) -> int | None:
    """Return the bytes of the tensor's elements; None where elements have no fixed size."""
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"{name}: tensor {tensor.name!r} has a negative size in {_sizes(tensor)}")
    elements: int = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return -(-elements // 2)
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{name}: tensor {tensor.name!r} has the unknown element type {tensor.data_type}") from None
    if dtype.kind == "O" or tensor.data_type > TensorProto.BFLOAT16:
        return None
    itemsize: int = dtype.itemsize
    return elements * itemsize


def external_path(location: str, folder: Path, name: str) -> Path:
    """Return the file that ``location`` names in the ``folder`` of the model ``name``. Raises ModelError for others.

    It may be a symbolic link within that folder, or, if the model is a link, to the folder of the link's target, as
    caches of model hubs store models. ONNX Runtime follows no other links, either.
    """
    place = PurePosixPath(location.replace("\\", "/"))
    if not location or place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
        raise ModelError(
            f"{name}: its weights refer to {location!r}, outside of the model's folder; such files are not "
            "opened. Save the model again with its weights beside it"
        )
    path = folder / place
    homes = folder.resolve(), (folder / name).resolve().parent
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise ModelError(
            f"{name}: its weights {location!r} are a link to {path.resolve()}, outside of the model's folder; it is "
            "not followed. Copy the file beside the model"
        )
    return path


def _check_external(tensor: TensorProto, claimed: int, name: str, folder: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", claimed))
    except ValueError:
        raise ModelError(f"{name}: tensor {tensor.name!r} has an offset or length that is not a number") from None
    path = external_path(entries.get("location", ""), folder, name)
    available = path.stat().st_size if path.is_file() else 0
    if length != claimed or offset < 0 or offset + length > available:
        raise ModelError(
            f"{name}: tensor {tensor.name!r} claims {claimed} bytes, {length} of them at {offset} in {path.name!r}, "
            f"which has {available} bytes; are model and data from the same export?"
        )
    if "length" not in entries:
        tensor.external_data.add(key="length", value=str(length))


def tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that the file stores, also in subgraphs and functions."""
    graphs = [proto.graph]
    nodes = [node for function in proto.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)


def check_steps(proto: onnx.ModelProto, name: str) -> None:
    """Check that kernels, strides and pads have plausible sizes: later steps count them pixel by pixel."""
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    for node in with_subgraphs(nodes):
        for attribute in node.attribute:
            largest = max(map(abs, attribute.ints), default=0) if attribute.name in STEPS else 0
            if largest > LARGEST_STEP:
                raise ModelError(
                    f"{name}: node {node.name[:LONGEST_DETAIL]!r} has {attribute.name} of {largest}; at most "
                    f"{LARGEST_STEP} pixels are taken"
                )


def check_functions(proto: onnx.ModelProto, name: str) -> None:
    """Check that local functions do not call themselves, and that inlining makes no more than ``MOST_NODES`` nodes."""
    functions = {(function.domain, function.name): list(with_subgraphs(function.node)) for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    for key in functions:
        _written_out(key, functions, sizes, name)
    nodes = sum(sizes.get((node.domain, node.op_type), 1) for node in with_subgraphs(proto.graph.node))
    if nodes > MOST_NODES:
        raise ModelError(
            f"{name}: the graph has {nodes} nodes with its functions written out; the limit is {MOST_NODES}"
        )


def _written_out(
    key: tuple[str, str],
    functions: Mapping[tuple[str, str], list[onnx.NodeProto]],
    sizes: dict[tuple[str, str], int],
    name: str,
) -> None:
    """Count the nodes of a function and of all that it calls, deepest first."""
    stack = [key]
    open_calls: set[tuple[str, str]] = set()
    while stack:
        current = stack[-1]
        if current in sizes:
            stack.pop()
            continue
        called = {(node.domain, node.op_type) for node in functions[current]} & functions.keys()
        waiting = [call for call in called if call not in sizes]
        if not waiting:
            sizes[current] = sum(sizes.get((node.domain, node.op_type), 1) for node in functions[current])
            stack.pop()
            open_calls.discard(current)
            continue
        open_calls.add(current)
        if any(call in open_calls for call in waiting):
            raise ModelError(f"{name}: the function {current[1]!r} calls itself; ONNX functions must not recurse")
        stack.append(waiting[0])


def with_subgraphs(nodes: object) -> Iterator[onnx.NodeProto]:
    """Yield ``nodes`` and all nodes of their subgraphs."""
    waiting = list(nodes)  # type: ignore[call-overload]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                waiting.extend(graph.node)
