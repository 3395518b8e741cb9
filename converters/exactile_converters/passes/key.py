"""A hash that identifies statistics: the same for all image sizes, and however a network is deployed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from exactile.contract.statistic import PREFIX
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.passes.reductions import Reduction


def statistics_key(
    local: Network, reductions: Sequence[Reduction], *, image_dtype: str, normalization: Normalization
) -> str:
    """Return the SHA-256 of operators, weights and normalisation, and of the statistics and their names.

    ``local`` is the network after ``take_out``, as it was read: before it is traced and anything is written into it.
    """
    found = hashlib.sha256()

    def add(*told: Any) -> None:
        found.update(repr(told).encode())

    add(image_dtype, local.channels, local.labels, normalization, sorted(local.model.opset_imports.items()))
    for one in reductions:
        add(one.kind, one.groups, one.grid, one.labels, one.of.name, [value.name for value in one.placeholders])
    for node in local.model.graph:
        add(
            node.domain, node.op_type, [_name(value) for value in node.inputs], [_name(value) for value in node.outputs]
        )
        for name, attribute in sorted(node.attributes.items()):
            add(name)
            found.update(ir.to_proto(attribute).SerializeToString(deterministic=True))
    for name, value in sorted(local.model.graph.initializers.items()):
        if not name.startswith(PREFIX) and value.const_value is not None:
            array = np.ascontiguousarray(value.const_value.numpy())
            add(name, array.dtype.name, array.shape)
            if array.dtype == object:  # strings
                add(array.tolist())
            else:
                found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""
