"""The path of the module from which a node was exported, as PyTorch's exporters write it.

TorchScript writes it into the node's name (``/encoder/layers.0/attn/MatMul``). Dynamo omits it from the name and writes
it into the node's metadata: ``pkg.torch.onnx.name_scopes`` lists the modules from the outermost one, and last the
operator: ``['', 'encoder', 'encoder.layers.0', 'encoder.layers.0.attn', 'matmul_3']``.
"""

from __future__ import annotations

import re

import onnx_ir as ir

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
LONGEST = 1 << 14
"""Most characters of metadata that are parsed."""

QUOTED = re.compile(r"'([^']*)'")


def module_path(node: ir.Node) -> str:
    """Return the innermost module's path; empty where the metadata does not contain it."""
    scopes = QUOTED.findall(node.metadata_props.get(NAME_SCOPES, "")[:LONGEST])
    path = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    return printable(path)


def printable(text: str) -> str:
    """Return ``text`` of a file, with "?" in place of control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
