"""The results of verifying a claimed geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axis = Literal["y", "x"]
Side = Literal["top", "bottom", "left", "right"]
Verdict = Literal["exact", "larger than needed", "sufficient", "TOO SMALL"]
"""``sufficient``: nothing from beyond was seen to matter, but whether less suffices could not be decided."""

Method = Literal["poison", "finite changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideProbe:
    """One side of the halo, in input pixels beyond a stride-aligned output box.

    ``measured_px`` is the farthest pixel that can influence the box, a lower bound if ``at_least``; ``visible_px`` the
    farthest whose change shows with the real weights in floating point, ``integer_px`` with integer weights, whose sums
    are exact (None where no integers pass through the network).
    """

    side: Side
    claimed_px: int
    measured_px: int
    at_least: bool
    visible_px: int
    integer_px: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Where the change of one input row (column) ``residue`` pixels after a multiple of the stride shows.

    ``first`` and ``last`` changed output pixel, counted from the output position of that multiple.
    """

    residue: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerProbe:
    """Effect of ones in an image of zeros on ``boxes`` adjacent stride-aligned boxes, with integer weights.

    ``beyond`` names the sides on which pixels beyond the claimed halo change a box, ``idle`` those on which the last
    pixel within it does not. Rows (columns) of all ``residues`` modulo the stride were set, one at a time: their effect
    moves along when they move by one of ``commuting_shifts``; not with ``placed`` operators, which depend on the
    position.
    """

    stride: int
    boxes: int
    residues: int
    beyond: tuple[Side, ...]
    idle: tuple[Side, ...]
    commuting_shifts: tuple[int, ...]
    placed: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.beyond or not (self.placed or self.stride in self.commuting_shifts):
            return "TOO SMALL"
        if self.placed or self.idle or min(self.commuting_shifts) < self.stride:
            return "sufficient"
        return "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisProbe:
    """One axis: both sides of the halo, and which shifts of the image shift the output.

    Shifts are not tried where operators depend on the position: comparing tiles with one pass then shows that their
    positions are right. ``integers`` is None where no integers pass through the network. ``refused_px`` is a size that
    the claim accepts but at which the network does not run; the probe used another one.
    """

    axis: Axis
    method: Method
    note: str
    stride: int
    stride_verdict: Verdict
    commuting_shifts: tuple[int, ...]
    sides: tuple[SideProbe, SideProbe]
    phases: tuple[Phase, ...]
    integers: IntegerProbe | None = None
    refused_px: int | None = None

    @property
    def holds(self) -> bool:
        verdicts = {self.stride_verdict, *(side.verdict for side in self.sides)}
        if self.integers is not None:
            verdicts.add(self.integers.verdict)
        return self.refused_px is None and "TOO SMALL" not in verdicts
