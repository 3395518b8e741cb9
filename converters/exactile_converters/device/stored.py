"""Store a graph with its weights as a message or, where one cannot hold it, as files; and compute its hash."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

LARGEST_MESSAGE_BYTES = (2 << 30) - (64 << 20)
"""Surely within protobuf's 2 GiB."""

SMALL_BYTES = 1024


@contextmanager
def stored(model: onnx.ModelProto) -> Iterator[bytes | Path]:
    """Yield the serialised model, or, where its weights are too large for one message, a temporary file."""
    if weights_bytes(model) < LARGEST_MESSAGE_BYTES:
        yield model.SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="exactile-") as folder:
        path = Path(folder) / "graph.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save(copy, str(path), save_as_external_data=True, location="weights.bin", size_threshold=SMALL_BYTES)
        yield path


def weights_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of all weights in the message."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def digest(model: onnx.ModelProto) -> str:
    """Return the SHA-256 of the graph and its weights."""
    found = hashlib.sha256(outline(model).SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        found.update(tensor.raw_data)
    return found.hexdigest()


def outline(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same without the data of large constants."""
    graph = onnx.GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) <= SMALL_BYTES:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
