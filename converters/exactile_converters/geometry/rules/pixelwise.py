"""Pixelwise operators: activations, arithmetic, casts, frozen normalisation."""

from __future__ import annotations

from exactile_converters.geometry.node_view import (
    FREE_OF_SIZE,
    Label,
    Labels,
    NodeView,
    Operand,
    is_spatial,
    same_places,
)
from exactile_converters.geometry.obstacle import ObstacleError, SizesDifferError
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.sliding import RUNTIME_DOMAIN

UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid "
    "Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
).split()

FIRST_OPSET_WITH_TRAINING_MODE = 14

BROADCASTING = (
    "Add And BitwiseAnd BitwiseOr BitwiseXor CastLike Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
    "Mod Mul Or PRelu Pow Sub Sum Where Xor"
).split()

MASKED_BY = {"Add": (0, 1), "Where": (0,)}
"""The operands that may be masks: added to scores of attention, or choosing between them and a constant."""


@rule(*UNARY)
@rule("Gelu", "QuickGelu", domain=RUNTIME_DOMAIN)
def unary(node: NodeView) -> Transfer:
    """Map one feature map to one of the same shape; Dropout is the identity at inference."""
    node.only_first_is_feature(("limit", "limit"))
    if node.op == "Dropout":
        training = node.operand(2)
        if training is not None and bool(training.constant("training_mode").any()):
            raise ObstacleError("dropout is in training mode", "Export the network in evaluation mode")
    _, labels = node.feature()
    return Transfer(labels=(labels,) * len(node.node.outputs), flows=(Flow(operand=0),))


@rule(*BROADCASTING)
@rule("BiasGelu", "FastGelu", domain=RUNTIME_DOMAIN)
def broadcasting(node: NodeView) -> Transfer:
    """Combine several operands element by element, aligned from the last dimension."""
    features = node.features
    labels = max((labels for _, _, labels in features), key=len)
    for _, _, other in features:
        if not same_places(other, labels[len(labels) - len(other) :]):
            raise ObstacleError(
                f"its operands have differently ordered axes, {other} and {labels}", "Transpose them alike"
            )
    result = node.result()
    if result.rank != len(labels):
        raise ObstacleError("a constant operand adds dimensions", "Give the constant the rank of the feature map")
    masks = tuple(index for index in MASKED_BY.get(node.op, ()) if _may_be_mask(node.operand(index), labels, result))
    for index, operand in enumerate(node.operands):
        if operand is not None and index not in masks:
            _check_alignment(operand, labels, result)
    return Transfer(
        labels=(labels,),
        flows=tuple(Flow(operand=index) for index, _, _ in features),
        positions=positions_of(node),
        masks=masks,
    )


def _may_be_mask(operand: Operand | None, labels: Labels, result: Operand) -> bool:
    """Return whether a constant follows the image's size as the map does, and varies with the position."""
    if operand is None or operand.is_feature or operand.position or operand.is_steady or operand.by_statistics:
        return False
    grows = False
    for back in range(1, operand.rank + 1):
        sizes, wanted = operand.sizes(operand.rank - back), result.sizes(result.rank - back)
        if is_spatial(labels[-back]) and sizes == wanted:
            grows = True
        elif sizes[0] != sizes[1] or (is_spatial(labels[-back]) and sizes[0] != 1):
            return False
    return grows


def positions_of(node: NodeView) -> tuple[int, ...]:
    """Return the operands that are computed from the image's size."""
    return tuple(index for index, operand in enumerate(node.operands) if operand is not None and operand.position)


def _check_alignment(operand: Operand, labels: Labels, result: Operand) -> None:
    if operand.position:
        for back in range(1, operand.rank + 1):
            sizes, wanted = operand.sizes(operand.rank - back), result.sizes(result.rank - back)
            if is_spatial(labels[-back]) and sizes not in ((1, 1), wanted):
                raise SizesDifferError(labels[-back], sizes[0], wanted[0])
        return
    if not operand.is_feature and not operand.is_steady and not _varies_over_space(operand, labels):
        raise ObstacleError(
            "it combines the feature map with a number computed from the image's size (or at random), which is another "
            "one for each tile",
            FREE_OF_SIZE,
        )
    for back in range(1, operand.rank + 1):
        if not is_spatial(labels[-back]):
            continue
        sizes, wanted = operand.sizes(operand.rank - back), result.sizes(result.rank - back)
        if operand.is_feature:
            if sizes != wanted:
                raise SizesDifferError(labels[-back], sizes[0], wanted[0])
        elif sizes != (1, 1) and not operand.repeats(operand.rank - back):
            raise varies_along(labels[-back])


def varies_along(label: Label) -> ObstacleError:
    """Return the error for a constant of which a tile cannot get its piece."""
    return ObstacleError(
        f"it combines the feature map with a constant that varies along {label} (a position encoding or coordinate "
        "map)",
        "Remove the position-dependent constant, or run the whole image at once",
    )


def _varies_over_space(operand: Operand, labels: Labels) -> bool:
    return any(
        is_spatial(labels[-back]) and not operand.repeats(operand.rank - back) for back in range(1, operand.rank + 1)
    )


@rule("BatchNormalization")
def batch_normalization(node: NodeView) -> Transfer:
    """Normalise with frozen statistics per channel. Before opset 14, further outputs, used or not, mean training."""
    outputs = sum(bool(output.name) for output in node.node.outputs)
    if node.integer("training_mode", 0) or (outputs > 1 and node.opset < FIRST_OPSET_WITH_TRAINING_MODE):
        raise ObstacleError("batch normalisation is in training mode", "Export the network in evaluation mode")
    node.only_first_is_feature(("scale", "bias", "mean", "variance"))
    _, labels = node.feature()
    if is_spatial(labels[1]):
        raise ObstacleError("it normalises a spatial axis", "Transpose so that channels come second")
    return Transfer(labels=(labels,), flows=(Flow(operand=0),))
