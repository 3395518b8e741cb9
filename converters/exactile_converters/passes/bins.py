"""Recognise adaptive pooling to a grid of bins, as ``torch_bins`` and exporters write it: a statistic for each bin.

    mean     Div(ReduceSum of each bin along one axis, then the other; pixels of each bin)
    maximum  ReduceMax of each bin along one axis, then the other

Each bin is selected by ``Where(mask, map, nothing)``, with masks computed from the size of the image or the map.
``bin_masks`` computes the masks to decide whether they are those of adaptive pooling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from exactile.contract.statistic import Grid
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Labels
from exactile_converters.passes.bin_masks import MaskedBins, are_bins
from exactile_converters.passes.taking import FLOAT, Taking

ROWS, COLUMNS = 2, 3
NOTHING = {"ReduceSum": 0.0, "ReduceMax": float("-inf")}
"""What replaces pixels outside of a bin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Along:
    """Bins along dimension ``dim`` of the map ``of``, one mask for each."""

    dim: int
    of: ir.Value
    masks: tuple[ir.Value, ...]


def binned(node: ir.Node, features: Mapping[str, FeatureMap], image: ir.Value, labels: Labels) -> Taking | None:
    """Return the statistic of bins that ``node`` computes of a map among ``features``; None for other operators.

    ``image`` is the network's input, with axes ``labels``.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Concat", "Div", "ReduceMax"):
        return None
    mean = node.op_type == "Div"
    reduced = node.inputs[0] if mean else node.outputs[0]
    operator = "ReduceSum" if mean else "ReduceMax"
    last = _along(reduced, operator)
    first = _along(last.of, operator) if last is not None else None
    if first is None or last is None or {first.dim, last.dim} != {ROWS, COLUMNS}:
        return None
    feature = features.get(first.of.name or "")
    if feature is None or feature.dtype != FLOAT.value or feature.labels != ("n", "c", "y", "x"):
        return None
    rows, columns = (one.masks for one in sorted((first, last), key=lambda one: one.dim))
    bins = MaskedBins(rows=rows, columns=columns, pixels=node.inputs[1] if mean else None)
    if not are_bins(bins, feature, features, image, labels):
        return None
    return _taking(node, first.of, feature, (len(rows), len(columns)))


def _taking(node: ir.Node, of: ir.Value, feature: FeatureMap, grid: Grid) -> Taking:
    channels = feature.shape[1]
    kind = "mean" if node.op_type == "Div" else "maximum"
    return Taking(
        kind=kind,  # type: ignore[arg-type]
        of=of,
        labels=feature.labels,
        groups=channels,
        names=(f"{kind}_of_bins",),
        shapes=((1, channels, *grid),),
        result=node.outputs[0],
        after=lambda placeholders: ([], placeholders[0]),
        grid=grid,
    )


def _along(value: ir.Value | None, operator: str) -> _Along | None:
    """Return the bins along one axis, concatenated along it."""
    node = value.producer() if value is not None else None
    if node is None or node.domain:
        return None
    parts = [_part(one, operator) for one in (node.inputs if node.op_type == "Concat" else (value,))]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts) or len({(part.dim, part.of) for part in known}) > 1:
        return None
    dim = known[0].dim
    if node.op_type == "Concat" and node.attributes.get_int("axis", 0) % (COLUMNS + 1) != dim:
        return None
    return _Along(dim=dim, of=known[0].of, masks=tuple(mask for part in known for mask in part.masks))


def _part(value: ir.Value | None, operator: str) -> _Along | None:
    """Return one bin along one axis: its contents, reduced."""
    reducing = value.producer() if value is not None else None
    if reducing is None or reducing.domain or reducing.op_type != operator or reducing.inputs[0] is None:
        return None
    cut, dims = reducing.inputs[0].producer(), _reduced_dims(reducing)
    if cut is None or cut.op_type != "Where" or cut.domain or len(dims) != 1:
        return None
    mask, of, nothing = cut.inputs
    if mask is None or of is None or not _is(nothing, NOTHING[operator]):
        return None
    return _Along(dim=dims[0], of=of, masks=(mask,))


def _reduced_dims(node: ir.Node) -> tuple[int, ...]:
    """Return the reduced dimensions; none where they are unknown or not kept in the result."""
    if not node.attributes.get_int("keepdims", 1):
        return ()
    given: Sequence[int] = node.attributes.get_ints("axes", ())
    if len(node.inputs) > 1:
        known = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
        given = known.numpy().ravel().tolist() if known is not None else ()
    return tuple(int(axis) % (COLUMNS + 1) for axis in given)


def _is(value: ir.Value | None, number: float) -> bool:
    known = ir.convenience.get_const_tensor(value) if value is not None else None
    return (
        known is not None
        and known.size == 1
        and len(known.shape) <= COLUMNS + 1
        and float(np.asarray(known.numpy()).ravel()[0]) == number
    )
