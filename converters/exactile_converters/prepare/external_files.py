"""Find the files next to a model that hold its weights."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from exactile_converters.declared.qupath import linked_model
from exactile_converters.onnx_files.untrusted import tensors


def external_files(model: Path) -> tuple[Path, ...]:
    """Return the files next to ``model`` that hold its tensors, or that it names; none if it is not a model."""
    linked = linked_model(model)
    if linked is not None:
        return (linked, *external_files(linked))
    try:
        proto = onnx.load(str(model), load_external_data=False)
    # Damaged files raise protobuf's own errors; opening the model reports what is wrong with it.
    except Exception:  # noqa: BLE001
        return ()
    locations = {
        entry.value
        for tensor in tensors(proto)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(model.parent / location for location in sorted(locations))
