"""Obstacles: why a graph cannot be tiled exactly."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from exactile_converters.geometry.module_path import module_path, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A graph node that makes exact tiling impossible, and what the user can do about it.

    ``module`` is the path of the module from which the node was exported; empty where the file does not contain it, or
    the node's name does. ``sizes_differ`` marks operands that do not fit each other, which may depend on the image's
    size alone; ``statistic`` numbers computed from the whole map, which passes can compute; ``unknown_input`` is the
    operand whose shape is unknown. ``others`` are further nodes of the same kind, and ``consequences`` follow from
    them.
    """

    node: str
    op: str
    reason: str
    remedy: str
    module: str = ""
    sizes_differ: bool = False
    statistic: bool = False
    unknown_input: int | None = None
    others: tuple[str, ...] = ()
    consequences: tuple[Obstacle, ...] = ()

    @property
    def count(self) -> int:
        """Return the number of nodes of this kind."""
        return 1 + len(self.others)

    @property
    def place(self) -> str:
        """Return the operator and the node, by the path of its module where that is known."""
        return f"{self.module} ({self.op} {printable(self.node)})" if self.module else f"{self.op} {self.node!r}"

    @property
    def places(self) -> str:
        """Return how many nodes of the kind there are, and the first."""
        return self.place if self.count == 1 else f"{self.count} {self.op} nodes, the first: {self.place}"

    @property
    def summary(self) -> str:
        """Return the obstacle in one line, without the remedy."""
        return f"{self.places}: {self.reason}"

    def __str__(self) -> str:
        return f"{self.summary}. {self.remedy}."


def obstacle_at(node: ir.Node, error: ObstacleError) -> Obstacle:
    """Return the obstacle at ``node`` for ``error``."""
    return Obstacle(
        node=name_of(node),
        op=node.op_type,
        module=module_path(node),
        reason=error.reason,
        remedy=error.remedy,
        sizes_differ=error.sizes_differ,
        statistic=error.statistic,
        unknown_input=error.unknown_input,
    )


def name_of(node: ir.Node) -> str:
    """Return the node's name, or that of its first output."""
    return node.name or node.outputs[0].name or "?"


class ObstacleError(Exception):
    """Raised by a rule; the trace turns it into an Obstacle that names the node."""

    sizes_differ = False
    statistic = False
    unknown_input: int | None = None

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class SizesDifferError(ObstacleError):
    """Two feature maps that must have the same size do not, at the probed image size."""

    sizes_differ = True

    def __init__(self, axis: str, first_px: int, second_px: int) -> None:
        super().__init__(
            f"its operands have different sizes along {axis} ({first_px} and {second_px} pixels for the same image)",
            "Crop, pad or resize so that both have the same size for every accepted image size",
        )


class ShapesDoNotFitError(ObstacleError):
    """Shape inference refuses the node, at the probed image size."""

    sizes_differ = True

    def __init__(self, failure: str) -> None:
        super().__init__(f"its shapes do not fit: {failure}", "Check the model with the framework that made it")


class StatisticError(ObstacleError):
    """A number that is computed from the whole map, for each channel or for several."""

    statistic = True


class UnknownShapeError(ObstacleError):
    """The shape of an operand is unknown: something before it is the obstacle."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the shape of its input {index} is not known before it runs", "Export with constants instead")
        self.unknown_input = index
