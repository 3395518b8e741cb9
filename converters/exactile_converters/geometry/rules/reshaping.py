"""Operators that regroup, repeat or add dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from exactile_converters.geometry.node_view import Label, Labels, NodeView, Operand, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError, StatisticError
from exactile_converters.geometry.reach import Blocks, Reach, Window
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.rules.products import CONVOLVE

Size = tuple[int, int]
"""A dimension at both probes."""

KEEP_AXES = "Keep height and width as axes of their own"
DYNAMIC = (
    "Export with dynamic height and width; sizes that Python computes (int, math.ceil) become numbers in a TorchScript "
    "export, and most of them stay formulas with dynamo=True"
)
PRODUCTS = {"Gemm", "MatMul"}
NORMALIZATION = "InstanceNormalization"


@dataclass(slots=True)
class _Group:
    """Consecutive dimensions before and after that hold the same number of elements."""

    labels: list[Label] = field(default_factory=list)
    before: list[Size] = field(default_factory=list)
    after: list[Size] = field(default_factory=list)


@rule("Reshape", "Flatten")
def reshape(node: NodeView) -> Transfer:
    """Regroup channels in any way; keep y and x, split them into blocks, merge them again, or flatten them by rows."""
    node.only_first_is_feature(("shape",))
    operand, labels = node.feature()
    result = node.result()
    grown: list[Label] = []
    reach: dict[Label, Reach] = {}
    for group in _groups(node, operand, labels, result):
        grown += _regroup(node, group, operand, reach)
    if grown and grown[0] == "c" and result.sizes(0) == (1, 1) and "n" not in grown:
        grown[0] = "n"
    return Transfer(labels=(tuple(grown),), flows=(Flow(operand=0, reach=reach),))


def _groups(node: NodeView, operand: Operand, labels: Labels, result: Operand) -> list[_Group]:
    """Return the finest division of both shapes into parts of equal product, at both probes."""
    before = [(label, operand.sizes(dim)) for dim, label in enumerate(labels)]
    after = [result.sizes(dim) for dim in range(result.rank)]
    groups: list[_Group] = []
    while before and after:
        group = _Group()
        _take(group, before)
        group.after.append(after.pop(0))
        while (left := _product(group.before)) != (right := _product(group.after)):
            if left[0] < right[0] and before:
                _take(group, before)
            elif left[0] > right[0] and after:
                group.after.append(after.pop(0))
            elif _readers(node) & PRODUCTS:
                raise ObstacleError(_mixing(node, [label for label in labels if label != "n"]), CONVOLVE)
            else:
                raise ObstacleError(_not_following(operand, result), DYNAMIC)
        groups.append(group)
    if groups:
        while before:
            _take(groups[-1], before)
        groups[-1].after += after
    return groups


def _not_following(operand: Operand, result: Operand) -> str:
    if operand.small.shape != operand.large.shape and result.small.shape == result.large.shape:
        return (
            f"it reshapes to {result.small.shape} whatever the image's size: the size that the network was exported at "
            "is written into it as numbers"
        )
    return (
        f"it reshapes {operand.small.shape} to {result.small.shape} but {operand.large.shape} to {result.large.shape}, "
        "which does not follow the image's size"
    )


def _take(group: _Group, before: list[tuple[Label, Size]]) -> None:
    label, size = before.pop(0)
    group.labels.append(label)
    group.before.append(size)


def _product(sizes: Sequence[Size]) -> Size:
    return prod(first for first, _ in sizes), prod(second for _, second in sizes)


def _regroup(node: NodeView, group: _Group, operand: Operand, reach: dict[Label, Reach]) -> list[Label]:
    """Return the labels of the group's dimensions afterwards."""
    inside = [
        (label, size)
        for label, size in zip(group.labels, group.before, strict=True)
        if is_spatial(label) or size[0] > 1
    ]
    places = [label for label, _ in inside if is_spatial(label)]
    if not places:
        return ["c"] * len(group.after)
    core = [size for size in group.after if size != (1, 1)]
    made = _place(inside, places, core, operand, reach)
    dealt = len(core) > 1 and places == [group.labels[-1]] and core[0][0] == core[0][1]
    if made is None and dealt and not _readers(node) & PRODUCTS:
        raise ObstacleError(
            f"it mixes {places[0]}: it cuts it into {core[0][0]} parts whose length follows the image's, and brings "
            "pixels of all parts together (as attention in a grid does)",
            "Use attention in windows of a constant size only, or run the whole image at once",
        )
    if made is None:
        readers = _readers(node)
        kind = StatisticError if NORMALIZATION in readers else ObstacleError
        raise kind(_mixing(node, [label for label, _ in inside]), CONVOLVE if readers & PRODUCTS else KEEP_AXES)
    remaining = iter(made)
    return [next(remaining) if size != (1, 1) else "c" for size in group.after]


def _place(
    inside: list[tuple[Label, Size]], places: list[Label], core: list[Size], operand: Operand, reach: dict[Label, Reach]
) -> list[Label] | None:
    """Return the labels of the dimensions ``core`` (none of size 1); None where positions are mixed."""
    labels = [label for label, _ in inside]
    if labels in (["y", "x"], ["yx"]):
        if len(core) == 1:
            return ["yx"]
        return ["y", "x"] if operand.space is not None and core == list(operand.space) else None
    axis, size = inside[0]
    if len(places) > 1 or axis != places[0] or axis == "yx" or (len(inside) > 1 and len(core) > 1):
        return None
    merged, split = _product([size for _, size in inside[1:]])[0], _product(core[1:])
    if split[0] != split[1] or core[0] != (size[0] * merged // split[0], size[1] * merged // split[1]):
        return None
    if merged > 1:
        reach[axis] = Blocks(factor=merged)
    elif split[0] > 1:
        reach[axis] = Window(kernel=split[0], stride=split[0])
    rest: list[Label] = ["c"] * (len(core) - 1)
    return [axis, *rest]


def _mixing(node: NodeView, labels: list[Label]) -> str:
    readers = _readers(node)
    words = [{"n": "batch", "c": "channels", "yx": "y and x"}.get(label, label) for label in labels]
    mixed = " and ".join(dict.fromkeys(words))
    if NORMALIZATION in readers:
        return f"it gathers {mixed} for a normalisation by statistics of the whole image (group normalisation)"
    if readers & PRODUCTS:
        return f"it gathers {mixed} for a fully connected layer, which connects all positions of the image"
    return f"it mixes {mixed} in one axis"


def _readers(node: NodeView) -> set[str]:
    """Return the operators that read the result, ignoring casts and copies."""
    found: set[str] = set()
    values = [node.node.outputs[0]]
    while values:
        for reader, _ in values.pop().uses():
            if reader.op_type in {"Cast", "Identity", "Dropout"}:
                values.append(reader.outputs[0])
            else:
                found.add(reader.op_type)
    return found


@rule("Expand", "Tile")
def expand(node: NodeView) -> Transfer:
    """Repeat along channels, and add leading dimensions."""
    node.only_first_is_feature(("shape",))
    operand, labels = node.feature()
    result = node.result()
    new = result.rank - operand.rank
    for dim, label in enumerate(labels):
        if is_spatial(label) and operand.sizes(dim) != result.sizes(dim + new):
            raise ObstacleError(f"it repeats the image along {label}", "Repeat channels only")
    front: list[Label] = ["c"] * new
    if front and "n" not in labels:
        front[0] = "n"
    return Transfer(labels=((*front, *labels),), flows=(Flow(operand=0),))


@rule("OneHot")
def one_hot(node: NodeView) -> Transfer:
    """Turn labels into one channel each."""
    node.only_first_is_feature(("depth", "values"))
    operand, labels = node.feature()
    axis = node.integer("axis", -1) % (operand.rank + 1)
    return Transfer(labels=((*labels[:axis], "c", *labels[axis:]),), flows=(Flow(operand=0),))
