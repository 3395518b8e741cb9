"""Convert a model to an opset that the other modules support."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx
import onnx.inliner

from exactile.errors import ModelError
from exactile_converters.cleanup.old_resize import keep_old_resize
from exactile_converters.geometry.runtime_shapes import NORMALIZATIONS
from exactile_converters.onnx_files.engine_check import DEFAULT_DOMAINS
from exactile_converters.onnx_files.untrusted import one_line, understood, with_subgraphs

FIRST_OPSET_WITH_RESIZE_MODES = 11

FIRST_IR_WITH_CONSTANT_INITIALIZERS = 4
"""Before this version, initialisers had to be inputs, too. ONNX Runtime does not require it."""

ASIDE = "exactile.aside"
"""A domain that the conversion skips."""


def at_least_opset(proto: onnx.ModelProto, wanted: int, name: str) -> onnx.ModelProto:
    """Return ``proto`` itself, or, if it is older, the same model at opset ``wanted``. Raises ModelError."""
    version = next((opset.version for opset in proto.opset_import if opset.domain in DEFAULT_DOMAINS), 0)
    newest = onnx.defs.onnx_opset_version()
    if version > newest:
        raise ModelError(
            f"{name}: the model has opset {version}; the newest known here is {newest}: update onnx, or export with it"
        )
    with understood(name):
        proto = _inlined(proto, version, wanted)
    if version >= wanted:
        return proto
    proto.ir_version = max(proto.ir_version, FIRST_IR_WITH_CONSTANT_INITIALIZERS)
    try:
        with _set_aside(proto) as restored:
            converted = onnx.version_converter.convert_version(proto, wanted)
            restored(converted)
    except Exception as error:
        raise ModelError(
            f"{name}: the model has opset {version} and cannot be brought to {wanted}: {one_line(error)}; "
            f"export it again with opset {wanted} or newer"
        ) from error
    if version < FIRST_OPSET_WITH_RESIZE_MODES:
        keep_old_resize(converted)
    return converted


def _inlined(proto: onnx.ModelProto, version: int, wanted: int) -> onnx.ModelProto:
    """Return functions at the model's opset, as ONNX Runtime requires; inlined where the model's opset changes."""
    for function in proto.functions:
        if _means_the_same(function, version):
            for entry in function.opset_import:
                entry.version = version if entry.domain in DEFAULT_DOMAINS else entry.version
    return onnx.inliner.inline_local_functions(proto) if proto.functions and version < wanted else proto


def _means_the_same(function: onnx.FunctionProto, version: int) -> bool:
    """Return whether no operator of ``function`` changed between its opset and ``version``."""
    own = next((entry.version for entry in function.opset_import if entry.domain in DEFAULT_DOMAINS), version)
    try:
        return all(
            onnx.defs.get_schema(node.op_type, own).since_version
            == onnx.defs.get_schema(node.op_type, version).since_version
            for node in with_subgraphs(function.node)
            if not node.domain
        )
    except onnx.defs.SchemaError:
        return False


@contextmanager
def _set_aside(proto: onnx.ModelProto) -> Iterator[Callable[[onnx.ModelProto], None]]:
    """Hide operators that ONNX Runtime has at every opset but ONNX lacks at this one; yield what restores them."""
    nodes = [node for node in with_subgraphs(proto.graph.node) if node.op_type in NORMALIZATIONS and not node.domain]

    def restore(model: onnx.ModelProto) -> None:
        for node in with_subgraphs(model.graph.node):
            if node.domain == ASIDE:
                node.domain = ""
        for entry in [entry for entry in model.opset_import if entry.domain == ASIDE]:
            model.opset_import.remove(entry)

    if nodes:
        proto.opset_import.add(domain=ASIDE, version=1)
    for node in nodes:
        node.domain = ASIDE
    try:
        yield restore
    finally:
        if nodes:
            restore(proto)
