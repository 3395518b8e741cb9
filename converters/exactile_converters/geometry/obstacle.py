"""Why a graph cannot be tiled exactly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A graph node that makes exact tiling impossible, and what the user can do about it."""

    node: str
    op: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.op} {self.node!r}: {self.reason}. {self.remedy}."


class ObstacleError(Exception):
    """Raised by a rule; the trace turns it into an Obstacle that names the node."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
