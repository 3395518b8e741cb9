"""The path of the module that a node was exported from, as PyTorch's exporters tell it.

TorchScript writes it into the node's name (``/encoder/layers.0/attn/MatMul``). Dynamo gives nodes names without it and
tells the path in the node's metadata: ``pkg.torch.onnx.name_scopes`` lists the modules from the outermost one, and
last the operator: ``['', 'encoder', 'encoder.layers.0', 'encoder.layers.0.attn', 'matmul_3']``.
"""

from __future__ import annotations

import re

import onnx_ir as ir

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
LONGEST = 1 << 14
"""Characters of metadata that are looked at."""

QUOTED = re.compile(r"'([^']*)'")


def module_path(node: ir.Node) -> str:
    """The innermost module's path; empty where the metadata does not tell it."""
    scopes = QUOTED.findall(node.metadata_props.get(NAME_SCOPES, "")[:LONGEST])
    path = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    return printable(path)


def printable(text: str) -> str:
    """``text`` of a file, with "?" for what steers a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
