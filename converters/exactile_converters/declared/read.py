"""Which file a model is, by its content: ONNX, whose metadata may say more, or a maker's archive with ONNX in it."""

from __future__ import annotations

from pathlib import Path

import onnx

from exactile_converters.declared.declaration import Declaration
from exactile_converters.declared.zeiss import read_zeiss
from exactile_converters.onnx_reading import parse_model, read_model


def read_declared(path: Path, *, output_name: str | None = None) -> tuple[onnx.ModelProto, Declaration | None]:
    """The checked model in the file at ``path``, and what is said of it beside; None where nothing is.

    With ``output_name`` that output is wanted, whatever the file says that the model is for. Raises ModelError.
    """
    zeiss = read_zeiss(path)
    if zeiss is not None:
        data, declaration = zeiss
        return parse_model(data, path, None), declaration
    return read_model(path), None
