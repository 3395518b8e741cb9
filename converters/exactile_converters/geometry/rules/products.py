"""Matrix products: over channels they are 1x1 convolutions; over positions they connect the whole image."""

from __future__ import annotations

from exactile_converters.geometry.node_view import Label, Labels, NodeView, Operand, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.sliding import RUNTIME_DOMAIN

WINDOWED = "Use an architecture without attention over positions, or run the whole image at once"
CONVOLVE = "Use a fully convolutional head (1x1 convolutions) instead"

ATTENTION = ObstacleError(
    "it multiplies the feature maps of all positions with each other (attention), so that every pixel depends on all "
    "others",
    WINDOWED,
)
CONNECTED = ObstacleError("it connects all positions of the image (a fully connected layer over space)", CONVOLVE)


@rule("MatMul", "MatMulInteger")
def matmul(node: NodeView) -> Transfer:
    """Multiply over channels: with a constant, or two feature maps position by position."""
    for index, _, _ in node.features:
        if index > 1:
            raise ObstacleError("its zero point is computed from the image", "Quantise with constant zero points")
    return _of_sides(node, (False, False))


@rule("FusedMatMul", "TransposeMatMul", domain=RUNTIME_DOMAIN)
def fused_matmul(node: NodeView) -> Transfer:
    """Multiply operands that are transposed before; the result is scaled by a number."""
    if node.integer("transBatchA", 0) or node.integer("transBatchB", 0):
        raise ObstacleError("it moves the batch of its operands before it multiplies", "Give the original model")
    return _of_sides(node, (bool(node.integer("transA", 0)), bool(node.integer("transB", 0))))


def _of_sides(node: NodeView, turned: tuple[bool, bool]) -> Transfer:
    """Return the product of two operands, either of which may be transposed before."""
    sides = [operand for operand in (node.operand(0), node.operand(1)) if operand is not None]
    letters = []
    for side, contracted, turn in zip(sides, (-1, -2), turned, strict=True):
        found = _letters(side, contracted=contracted)
        letters.append([*found[:-2], found[-1], found[-2]] if turn and side.rank > 1 else found)
    labels = _product(letters[0], letters[1])
    if sides[0].rank == 1:
        labels = (*labels[:-2], labels[-1])
    if sides[1].rank == 1:
        labels = labels[:-1]
    return Transfer(labels=(labels,), flows=tuple(Flow(operand=index) for index, _, _ in node.features))


@rule("Gemm")
def gemm(node: NodeView) -> Transfer:
    """Apply a dense layer over the channels of flattened positions."""
    sides = []
    for index, flag in ((0, "transA"), (1, "transB")):
        operand = node.operand(index)
        if operand is None:
            raise CONNECTED
        letters = _letters(operand, contracted=-1)
        sides.append(letters[::-1] if node.integer(flag, 0) else letters)
    labels = _product(sides[0], sides[1])
    bias = node.operand(2)
    if bias is not None:
        _check_bias(bias, labels)
    return Transfer(labels=(labels,), flows=tuple(Flow(operand=index) for index, _, _ in node.features))


def _check_bias(bias: Operand, labels: Labels) -> None:
    if bias.labels is not None:
        if bias.labels != labels:
            raise CONNECTED
        return
    for back in range(1, bias.rank + 1):
        if is_spatial(labels[-back]) and bias.sizes(bias.rank - back) != (1, 1):
            raise ObstacleError(
                "its bias varies along the positions of the image", "Use a bias that is constant over the image"
            )


def _letters(operand: Operand, *, contracted: int) -> list[Label | None]:
    """Return a label for each dimension; None for a constant's dimensions of size 1, which fit any."""
    if operand.labels is None:
        letters: list[Label | None] = [None if operand.sizes(dim) == (1, 1) else "c" for dim in range(operand.rank)]
    else:
        letters = list(operand.labels)
    if len(letters) == 1:
        return ["c", letters[0]] if contracted == -1 else [letters[0], "c"]
    return letters


def _product(first: list[Label | None], second: list[Label | None]) -> Labels:
    """Return the labels of the product of (..., i, k) and (..., k, j)."""
    (row, left), (right, column) = first[-2:], second[-2:]
    if any(label is not None and is_spatial(label) for label in (left, right)):
        raise ATTENTION if _has_places(first) and _has_places(second) else CONNECTED
    batch = _batch(first[:-2], second[:-2])
    labels = (*batch, row or "c", column or "c")
    places = [label for label in labels if is_spatial(label)]
    if len(places) != len(set(places)) or ("yx" in places and len(places) > 1):
        raise ATTENTION
    return labels


def _batch(first: list[Label | None], second: list[Label | None]) -> Labels:
    length = max(len(first), len(second))
    both = _has_places(first) and _has_places(second)
    merged: list[Label] = []
    for one, other in zip(_padded(first, length), _padded(second, length), strict=True):
        place = next((label for label in (one, other) if label is not None and is_spatial(label)), None)
        if place is not None and one != other and (both or None not in (one, other)):
            raise ATTENTION if both else CONNECTED
        merged.append(place or one or other or "c")
    return tuple(merged)


def _padded(letters: list[Label | None], length: int) -> list[Label | None]:
    return [None] * (length - len(letters)) + letters


def _has_places(letters: list[Label | None]) -> bool:
    return any(label is not None and is_spatial(label) for label in letters)


@rule("Einsum")
def einsum(node: NodeView) -> Transfer:
    """Sum over channels; every position must keep its letter from each feature map to the result."""
    terms, result = _terms(node)
    meaning: dict[str, Label] = {}
    for index, _, labels in node.features:
        letters = terms[index]
        for letter, label in zip(letters, labels, strict=True):
            if is_spatial(label) and (letters.count(letter) > 1 or meaning.get(letter, label) != label):
                raise ATTENTION
            if is_spatial(label) or letter not in meaning:
                meaning[letter] = label
    places = {letter for letter, label in meaning.items() if is_spatial(label)}
    for index, letters in enumerate(terms):
        operand = node.operand(index)
        if operand is None:
            continue
        if operand.is_feature and not places <= set(letters):
            raise ATTENTION
        if not operand.is_feature and any(operand.sizes(dim) != (1, 1) for dim, x in enumerate(letters) if x in places):
            raise CONNECTED
    if not places <= set(result) or any(result.count(letter) > 1 for letter in places):
        raise ATTENTION if len(node.features) > 1 else CONNECTED
    labels = tuple(meaning.get(letter, "c") for letter in result)
    return Transfer(labels=(labels,), flows=tuple(Flow(operand=index) for index, _, _ in node.features))


def _terms(node: NodeView) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; an ellipsis becomes digits counted from its end."""
    equation = node.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    hidden = 0
    for index, term in enumerate(terms):
        operand = node.operand(index)
        if "..." in term and operand is not None:
            count = operand.rank - (len(term) - 3)
            hidden = max(hidden, count)
            terms[index] = term.replace("...", _ellipsis(count))
    if not arrow:
        letters = "".join(terms)
        right = _ellipsis(hidden) + "".join(sorted(x for x in set(letters) if x.isalpha() and letters.count(x) == 1))
    return terms, right.replace("...", _ellipsis(hidden))


def _ellipsis(count: int) -> str:
    return "".join(chr(ord("0") + position) for position in reversed(range(count)))
