"""The report of a run on its tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from exactile.contract.tolerance import Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class ToleranceReport:
    """The halo that was taken, the error that was ``expected`` from ``source``, and the one ``found`` in ``checked``
    tiles.

    ``exact`` if the run is; ``reason`` says why it is nevertheless. ``at`` is the first result pixel, (y, x), of the
    tile with the largest error. ``found`` is None if nothing was left to check.
    """

    tolerance: str
    exact: bool
    halo_px: int
    exact_halo_px: int
    source: str
    expected: float | None = None
    found: float | None = None
    checked: int = 0
    tiles: int = 0
    at: tuple[int, int] | None = None
    reason: str = ""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> ToleranceReport:
        """Create a report from ``plain``, which may have been a file."""
        at = record["at"]
        return cls(**{**record, "at": None if at is None else (at[0], at[1])})

    @property
    def plain(self) -> dict[str, Any]:
        """Return it as plain data; an infinite number as text."""
        at = None if self.at is None else list(self.at)
        return {**asdict(self), "expected": _finite(self.expected), "found": _finite(self.found), "at": at}

    @property
    def sentence(self) -> str:
        """Return it as a sentence for people."""
        if self.exact:
            return f"yes, with a tolerance of {self.tolerance}: {self.reason}"
        return (
            f"no: halo {self.halo_px} of {self.exact_halo_px} px, with a tolerance of {self.tolerance}; "
            f"{self._error} {_number(self.found)} in {self.checked} of {self.tiles} tiles that were checked, "
            f"{_number(self.expected)} expected by {self.source}"
        )

    @property
    def _error(self) -> str:
        labels = Tolerance.parse(self.tolerance).kind == "labels"
        return "share of other labels" if labels else "largest difference, of the range of scores,"


def exceeded(tolerance: Tolerance, found: float, at: tuple[int, int]) -> str:
    """Return why the exact plan is run."""
    return (
        f"tolerance exceeded: {found:.2g} > {tolerance.most:g}, most of it in the tile at row {at[0]}, column {at[1]}; "
        "the whole image was run with the exact plan"
    )


def _finite(value: float | None) -> float | str | None:
    return value if value is None or value < float("inf") else "infinite"


def _number(value: float | str | None) -> str:
    return "unknown" if value is None else value if isinstance(value, str) else f"{value:.2g}"
