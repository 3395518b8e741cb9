"""Read ONNX safely: a file, or the bytes of one, with the weights next to it."""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from exactile.errors import ModelError
from exactile.file_kinds import not_a_model
from exactile_converters.onnx_files.engine_check import check_model, name_default_domain
from exactile_converters.onnx_files.external_data import load_external_data
from exactile_converters.onnx_files.sparse_initializers import write_out_sparse
from exactile_converters.onnx_files.untrusted import check_tensors, one_line, tensors

LARGEST_FILE_BYTES = 2 << 30


def read_model(path: Path) -> onnx.ModelProto:
    """Return the checked model, including external data (only from the model's own folder). Raises ModelError."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give an .onnx file. Of a bundle, exactile info prints stride and halo")
    if not path.is_file():
        raise ModelError(f"no model at {path}")
    other = not_a_model(path)
    if other is not None:
        raise ModelError(other)
    size = path.stat().st_size
    if not 0 < size < LARGEST_FILE_BYTES:
        raise ModelError(f"{path} has {size} bytes; an ONNX file has between 1 and {LARGEST_FILE_BYTES - 1}")
    return parse_model(_bytes_of(path), path, path.parent)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def parse_model(data: bytes, path: Path, folder: Path | None) -> onnx.ModelProto:
    """Return the checked model in ``data``, read from ``path``; its weights may lie in ``folder``, if given.

    Raises ModelError.
    """
    try:
        proto = onnx.load_from_string(data)
    except Exception as error:
        raise ModelError(f"{path} is not an ONNX model: it cannot be parsed ({one_line(error)})") from error
    del data  # as large as the network; the checker makes its own copies
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(f"{path} is not an ONNX model: it holds no graph")
    outside = [tensor.name for tensor in tensors(proto) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if folder is None and outside:
        raise ModelError(f"{path}: the network in it has weights in another file, which there is not: {outside[0]!r}")
    try:
        name_default_domain(proto, path.name)
        check_tensors(proto, path.name, folder)
        if folder is not None:
            load_external_data(proto, folder, path.name)
        write_out_sparse(proto, path.name)
        check_model(proto)
    except ModelError:
        raise
    except Exception as error:
        foreign = re.search(r"No Op registered for (\w+) with domain_version of (\d+)", str(error))
        if foreign:
            raise ModelError(
                f"{path} holds the operator {foreign[1]}, which ONNX does not have at opset {foreign[2]}: its exporter "
                "left it untranslated. Export it again, with a newer opset or exporter, or without this operator"
            ) from error
        raise ModelError(f"{path} is not a valid ONNX model: {one_line(error)}") from error
    return proto
