"""Recognise a model file by its content: ONNX, whose metadata may declare more, or a vendor's archive with ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx

from exactile.errors import ModelError
from exactile_converters.declared.deepness import deepness_declaration
from exactile_converters.declared.properties import Properties
from exactile_converters.declared.qupath import read_qupath
from exactile_converters.declared.ultralytics import ultralytics_declaration
from exactile_converters.declared.zeiss import read_zeiss
from exactile_converters.networks.declaration import Declaration
from exactile_converters.onnx_files.reading import parse_model, read_model


def read_declared(path: Path, *, output_name: str | None = None) -> tuple[onnx.ModelProto, Declaration | None]:
    """Return the checked model in the file at ``path``, and its declaration; None where there is none.

    ``output_name`` chooses an output, whatever purpose the file declares. Raises ModelError.
    """
    zeiss = read_zeiss(path)
    if zeiss is not None:
        data, declaration = zeiss
        return parse_model(data, path, None), declaration
    classifier = read_qupath(path)
    if classifier is not None:
        model, declaration, output = classifier
        proto = read_model(model)
        return (proto if output is None else with_output_first(proto, output, path)), declaration
    proto = read_model(path)
    properties = Properties.of(proto, path.name, output_name)
    wanted = output_name is not None
    found = ultralytics_declaration(properties, wanted=wanted) or deepness_declaration(properties, wanted=wanted)
    return proto, found


def with_output_first(proto: onnx.ModelProto, output: str, path: Path) -> onnx.ModelProto:
    """Return the model whose first output is ``output``, which ``path`` names. Raises ModelError without it."""
    named = {value.name: value for value in proto.graph.output}
    if output not in named:
        raise ModelError(f"{path}: the network has no output {output!r}; it has {', '.join(named)}")
    others = [value for name, value in named.items() if name != output]
    ordered = [named[output], *others]
    del proto.graph.output[:]
    proto.graph.output.extend(ordered)
    return proto
