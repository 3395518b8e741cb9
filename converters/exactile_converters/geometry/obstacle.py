"""Why a graph cannot be tiled exactly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A graph node that makes exact tiling impossible, and what the user can do about it.

    ``sizes_differ`` marks operands that do not fit each other, which may be a matter of the image's size alone.
    """

    node: str
    op: str
    reason: str
    remedy: str
    sizes_differ: bool = False

    def __str__(self) -> str:
        return f"{self.op} {self.node!r}: {self.reason}. {self.remedy}."


class ObstacleError(Exception):
    """Raised by a rule; the trace turns it into an Obstacle that names the node."""

    sizes_differ = False

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class SizesDifferError(ObstacleError):
    """Two feature maps that must be equally large are not, at the image size probed."""

    sizes_differ = True

    def __init__(self, axis: str, first_px: int, second_px: int) -> None:
        super().__init__(
            f"its operands have different sizes along {axis} ({first_px} and {second_px} pixels for the same image)",
            "Crop, pad or resize so that both have the same size for every accepted image size",
        )


class ShapesDoNotFitError(ObstacleError):
    """Shape inference refuses the node, at the image size probed."""

    sizes_differ = True

    def __init__(self, failure: str) -> None:
        super().__init__(f"its shapes do not fit: {failure}", "Check the model with the framework that made it")
