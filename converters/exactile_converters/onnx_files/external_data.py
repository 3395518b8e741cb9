"""Load weights from files next to the model, whichever links lead there."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from exactile.errors import ModelError
from exactile_converters.onnx_files.untrusted import external_path, tensors


def load_external_data(proto: onnx.ModelProto, folder: Path, name: str) -> None:
    """Load external tensors, whose offsets and lengths are checked, into ``proto``. Raises ModelError."""
    for tensor in tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = external_path(entries.get("location", ""), folder, name)
        try:
            with path.open("rb") as file:
                file.seek(int(entries.get("offset", 0)))
                tensor.raw_data = file.read(int(entries["length"]))
        except OSError as error:
            raise ModelError(f"{name}: its weights cannot be read: {path}: {error.strerror}") from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
