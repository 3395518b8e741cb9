"""The request for a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from exactile.contract.tolerance import Tolerance
from exactile.errors import OptionError
from exactile.plan.background import Background
from exactile.plan.border import BORDERS, Border

PlanName = Literal["auto", "whole", "tile", "strip"]
PLAN_NAMES: tuple[PlanName, ...] = get_args(PlanName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The request for a plan. ``tile`` forces its shape: (height, width), or strip rows and band width.

    ``apart_bytes``: bytes for what is done with the result afterwards, when the engine is closed. ``tolerance`` is the
    largest error of tiles that need not be exact; None for exact ones. ``lanes``, on a CPU: number of concurrent
    engines (default: as many as pay off). ``trial``: if the choice is left to the planner and the run will be long, a
    CPU tries the best plans on the first steps.
    """

    plan: PlanName = "auto"
    tile: tuple[int, int] | None = None
    border: Border = "model"
    background: Background | None = None
    apart_bytes: int = 0
    tolerance: Tolerance | None = None
    lanes: int | None = None
    trial: bool = False

    def __post_init__(self) -> None:
        if self.plan not in PLAN_NAMES:
            raise OptionError(f"plan must be one of {', '.join(PLAN_NAMES)}, got {self.plan!r}")
        if self.border not in BORDERS:
            raise OptionError(f"border must be one of {', '.join(BORDERS)}, got {self.border!r}")
        if self.plan == "whole" and self.tile is not None:
            raise OptionError("--plan whole makes one pass; it takes no --tile")
        if self.tile is not None and min(self.tile) < 1:
            raise OptionError(f"a tile needs a positive height and width, got {self.tile[0]}x{self.tile[1]}")
        if self.lanes is not None and self.lanes < 1:
            raise OptionError(f"at least one lane is needed, got {self.lanes}")
        if self.background is not None and self.plan == "strip":
            raise OptionError("strips go over everything; to skip background, use --plan tile")
        if self.tolerance is not None and self.plan in {"whole", "strip"}:
            raise OptionError(f"--plan {self.plan} is exact; a --tolerance is for tiles")
        if self.tolerance is not None and self.border != "model":
            raise OptionError(f"a --tolerance goes with --border model, not {self.border}")
