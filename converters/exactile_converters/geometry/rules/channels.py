"""Operators that mix, move or select channels and keep y and x."""

from __future__ import annotations

from exactile_converters.geometry.node_view import (
    FREE_OF_SIZE,
    VARYING,
    Label,
    Labels,
    NodeView,
    Operand,
    is_spatial,
    is_whole,
    same_places,
)
from exactile_converters.geometry.obstacle import ObstacleError, SizesDifferError, StatisticError
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.rules.cyclic_shift import cyclic_shift
from exactile_converters.geometry.rules.pixelwise import positions_of

REDUCTIONS = (
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare"
).split()


@rule("Concat")
def concat(node: NodeView) -> Transfer:
    """Concatenate channels of feature maps of the same size."""
    result = node.result()
    labels = node.features[0][2]
    axis = result.axis(node.integer("axis", 0))
    if is_spatial(labels[axis]):
        raise ObstacleError(f"it concatenates along {labels[axis]}", "Use padding operators to extend the image")
    for _, operand, other in node.features:
        if not same_places(other, labels):
            raise ObstacleError(f"its operands have differently ordered axes, {other} and {labels}", "Transpose alike")
        for dim, label in enumerate(labels):
            if is_spatial(label) and operand.sizes(dim) != result.sizes(dim):
                raise SizesDifferError(label, operand.sizes(dim)[0], result.sizes(dim)[0])
    for constant in node.operands:
        if constant is not None and not constant.is_feature:
            _check_constant(constant, labels, result)
    return Transfer(
        labels=(labels,),
        flows=tuple(Flow(operand=index) for index, _, _ in node.features),
        positions=positions_of(node),
    )


def _check_constant(constant: Operand, labels: Labels, result: Operand) -> None:
    """Check that a constant map is the same everywhere, and as large as the image whatever its size."""
    if constant.position:
        for dim, label in enumerate(labels):
            if is_spatial(label) and constant.sizes(dim) != result.sizes(dim):
                raise SizesDifferError(label, constant.sizes(dim)[0], result.sizes(dim)[0])
        return
    for dim, label in enumerate(labels):
        if not is_spatial(label):
            continue
        if not constant.repeats(dim) or constant.sizes(dim) != result.sizes(dim):
            raise ObstacleError(
                "it concatenates a constant map (a position encoding or coordinate map)",
                "Remove the constant map, or run the whole image at once",
            )
    if not constant.is_steady:
        raise ObstacleError("it concatenates a constant that is computed from the image's size", FREE_OF_SIZE)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: NodeView) -> Transfer:
    """Normalise over channels only. Before opset 13 all axes from ``axis`` on are normalised together."""
    operand, labels = node.feature()
    axis = operand.axis(node.integer("axis", -1 if node.opset >= 13 else 1))
    over = labels[axis : axis + 1] if node.opset >= 13 else labels[axis:]
    if any(is_spatial(label) for label in over):
        raise ObstacleError(
            f"it normalises over {' and '.join(label for label in over if is_spatial(label))}, so that every pixel "
            "depends on all others",
            "Apply it over channels",
        )
    return Transfer(labels=(labels,), flows=(Flow(operand=0),))


@rule(*REDUCTIONS)
def reduce(node: NodeView) -> Transfer:
    """Reduce over channels; reductions over space are obstacles."""
    operand, labels = node.feature()
    axes = _reduced_axes(node, tuple(range(operand.rank)))
    over = [labels[axis] for axis in axes if is_spatial(labels[axis])]
    if over:
        raise (StatisticError if is_whole(over) else ObstacleError)(
            f"it reduces over {' and '.join(over)}, so that its result depends on the whole image",
            "Replace the global pooling, attention or normalisation by one that looks at a bounded neighbourhood",
        )
    if node.integer("keepdims", 1):
        return Transfer(labels=(labels,), flows=(Flow(operand=0),))
    kept = tuple(label for dim, label in enumerate(labels) if dim not in axes)
    return Transfer(labels=(kept,), flows=(Flow(operand=0),))


def _reduced_axes(node: NodeView, everything: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(everything)
    if node.op in {"ArgMax", "ArgMin"}:
        return (node.integer("axis", 0) % rank,)
    axes_input = node.operand(1)
    if axes_input is not None:
        axes = tuple(int(axis) for axis in axes_input.constant("axes").ravel())
    else:
        axes = node.integers("axes", ())
    if not axes:
        return () if node.integer("noop_with_empty_axes", 0) else everything
    return tuple(axis % rank for axis in axes)


@rule("Transpose")
def transpose(node: NodeView) -> Transfer:
    """Reorder axes, which keep their meaning."""
    operand, labels = node.feature()
    order = node.integers("perm", tuple(reversed(range(operand.rank))))
    return Transfer(labels=(tuple(labels[dim] for dim in order),), flows=(Flow(operand=0),))


@rule("Squeeze", "Unsqueeze")
def squeeze(node: NodeView) -> Transfer:
    """Add or remove dimensions of size 1; new ones count as channels, or as the batch if there is none."""
    operand, labels = node.feature()
    axes_input = node.operand(1)
    axes = (
        tuple(int(axis) for axis in axes_input.constant("axes").ravel())
        if axes_input is not None
        else node.integers("axes", ())
    )
    if node.op == "Squeeze":
        gone = {operand.axis(axis) for axis in axes} or {
            dim for dim in range(operand.rank) if operand.sizes(dim) == (1, 1)
        }
        if any(is_spatial(labels[dim]) for dim in gone):
            raise ObstacleError("it removes a spatial axis", "Squeeze batch or channel axes only")
        kept = tuple(label for dim, label in enumerate(labels) if dim not in gone)
        return Transfer(labels=(kept,), flows=(Flow(operand=0),))
    new = sorted(axis % (operand.rank + len(axes)) for axis in axes)
    grown: Labels = labels
    for axis in new:
        label: Label = "n" if axis == 0 and "n" not in grown else "c"
        grown = (*grown[:axis], label, *grown[axis:])
    return Transfer(labels=(grown,), flows=(Flow(operand=0),))


@rule("Gather")
def gather(node: NodeView) -> Transfer:
    """Select channels by constant indices, look up pixels in a constant table, or shift cyclically."""
    axis = node.integer("axis", 0)
    table, found = node.operand(0), node.operand(1)
    shifted = cyclic_shift(node)
    if shifted is not None:
        return shifted
    if found is not None and not found.is_feature and not found.is_steady:
        raise ObstacleError(VARYING.format(1), FREE_OF_SIZE)
    if table is not None and found is not None and not table.is_feature and found.labels is not None:
        axis = table.axis(axis)
        before: list[Label] = ["c"] * axis
        after: list[Label] = ["c"] * (table.rank - axis - 1)
        looked_up: Labels = (*before, *found.labels, *after)
        return Transfer(labels=(looked_up,), flows=(Flow(operand=1),))
    node.only_first_is_feature(("indices",))
    operand, labels = node.feature()
    axis = operand.axis(axis)
    if is_spatial(labels[axis]):
        raise ObstacleError(f"it selects single positions along {labels[axis]}", "Use Slice to crop")
    if labels[axis] == "n" and found is not None and (found.rank != 1 or found.sizes(0) != (1, 1)):
        raise ObstacleError(
            "it selects entries of the batch, and an image is a batch of one", "Leave the batch as it is"
        )
    rank = found.rank if found is not None else 0
    several: list[Label] = ["c"] * rank
    middle: Labels = labels[axis : axis + 1] if rank == 1 else tuple(several)
    return Transfer(labels=((*labels[:axis], *middle, *labels[axis + 1 :]),), flows=(Flow(operand=0),))


@rule("GatherElements")
def gather_elements(node: NodeView) -> Transfer:
    """Select channels, one for each pixel, by indices that may be computed from the image."""
    operand, labels = node.feature()
    axis = operand.axis(node.integer("axis", 0))
    found, result = node.operand(1), node.result()
    if is_spatial(labels[axis]):
        raise ObstacleError(f"it selects single positions along {labels[axis]}", "Select channels only")
    if found is None or found.labels is None or not same_places(found.labels, labels):
        raise ObstacleError("its indices are not a map of the image", "Compute the indices from the image")
    if any(is_spatial(label) and operand.sizes(dim) != result.sizes(dim) for dim, label in enumerate(labels)):
        raise ObstacleError("its operands have different sizes", "Crop, pad or resize so that both have the same size")
    return Transfer(labels=(labels,), flows=(Flow(operand=0), Flow(operand=1)))


@rule("CumSum", "CumProd", "TopK")
def along_channels(node: NodeView) -> Transfer:
    """Accumulate, or find the largest, over channels."""
    node.only_first_is_feature(("axis" if node.op != "TopK" else "number of values",))
    operand, labels = node.feature()
    given = node.operand(1)
    chosen = given.constant("axis").ravel()[0] if given is not None and node.op != "TopK" else node.integer("axis", -1)
    axis = operand.axis(int(chosen))
    if is_spatial(labels[axis]):
        raise ObstacleError(
            f"it runs along {labels[axis]} over the whole image, so that every pixel depends on others however far",
            "Apply it over channels",
        )
    return Transfer(labels=(labels,) * len(node.node.outputs), flows=(Flow(operand=0),))


@rule("Split")
def split(node: NodeView) -> Transfer:
    """Split channels into groups."""
    operand, labels = node.feature()
    axis = operand.axis(node.integer("axis", 0))
    if is_spatial(labels[axis]):
        raise ObstacleError(f"it cuts the image apart along {labels[axis]}", "Split channels only")
    return Transfer(labels=(labels,) * len(node.node.outputs), flows=(Flow(operand=0),))


@rule("LRN")
def local_response(node: NodeView) -> Transfer:
    """Normalise across neighbouring channels."""
    _, labels = node.feature()
    if is_spatial(labels[1]):
        raise ObstacleError("it normalises along a spatial axis", "Transpose so that channels come second")
    return Transfer(labels=(labels,), flows=(Flow(operand=0),))
