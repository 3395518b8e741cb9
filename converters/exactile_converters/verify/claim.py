"""What a verification says about a claimed geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axis = Literal["y", "x"]
Side = Literal["top", "bottom", "left", "right"]
Verdict = Literal["exact", "larger than needed", "sufficient", "TOO SMALL"]
"""``sufficient``: nothing from beyond was seen to matter, but whether less would do could not be decided."""

Method = Literal["poison", "finite changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideProbe:
    """One side of the halo, in input pixels beyond a stride-aligned output box.

    ``measured_px`` is the farthest pixel that can influence the box, a lower bound where ``at_least``;
    ``visible_px`` the farthest whose change shows with the real weights in floating point, ``integer_px`` with
    weights 0 and 1, whose sums are exact (None where the network's own arithmetic does not keep them finite).
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
    """Where the change of one input row (column) ``residue`` pixels behind a multiple of the stride shows.

    ``first`` and ``last`` changed output pixel, counted from the output position of that multiple.
    """

    residue: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisProbe:
    """One axis: both sides of the halo, and which shifts of the image shift the output."""

    axis: Axis
    method: Method
    note: str
    stride: int
    stride_verdict: Verdict
    commuting_shifts: tuple[int, ...]
    sides: tuple[SideProbe, SideProbe]
    phases: tuple[Phase, ...]

    @property
    def holds(self) -> bool:
        return "TOO SMALL" not in {self.stride_verdict, *(side.verdict for side in self.sides)}
