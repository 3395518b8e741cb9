"""The requested bound on the error of a result that is not exact."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from exactile.errors import OptionError

ErrorKind = Literal["scores", "labels"]
LABELS = "labels:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """At most ``most`` error: 0 or more, less than 1.

    For ``scores``: the largest difference of one, relative to the range of all exact ones. For ``labels``: the fraction
    that differs.
    """

    kind: ErrorKind
    most: float

    def __post_init__(self) -> None:
        if not isfinite(self.most) or not 0 <= self.most < 1:
            raise OptionError(f"a tolerance is a share, 0 or more and less than 1, got {self.most:g}")

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Parse ``1e-4`` (scores) or ``labels:1e-5`` (labels). Raises OptionError."""
        kind: ErrorKind = "labels" if text.startswith(LABELS) else "scores"
        try:
            most = float(text.removeprefix(LABELS))
        except ValueError:
            raise OptionError(
                f"--tolerance takes a share, such as 1e-4 (of the range of scores) or labels:1e-5 (of all labels), got "
                f"{text!r}"
            ) from None
        return cls(kind=kind, most=most)

    @property
    def text(self) -> str:
        """The text that ``parse`` accepts."""
        return f"{LABELS if self.kind == 'labels' else ''}{self.most!r}"
