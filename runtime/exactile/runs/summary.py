"""What a run did."""

from __future__ import annotations

from dataclasses import dataclass

from exactile.contract import BY_RULES, Verification
from exactile.passes.fixed import FixedStatistics
from exactile.passes.report import PassReport
from exactile.pipeline.run import StageSeconds
from exactile.pipeline.stored_values import NO_NAN, NanReport
from exactile.plan.border import Border
from exactile.sources.damage import NO_DAMAGE, DamageReport
from exactile.sources.protocol import ReadCount
from exactile.tolerance.report import ToleranceReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did. Sizes in pixels, (height, width).

    ``padded_because`` says why the ``domain``, which the network runs over, is not the image; empty if it is.
    ``kept_pixels`` of the result are from an earlier run that this one resumed, ``skipped_pixels`` were background.
    ``nan`` reports scores that are not numbers, ``rule`` how numbers became the result, ``verification`` how it is
    known that it equals one pass, ``notes`` how the image was read. ``processor`` is what computed: the CPU, or GPUs,
    and the engine; on a CPU, ``lanes`` concurrent engines. ``passes`` found statistics of the whole image before; if
    ``statistics`` were given, these were used instead, and determine the result. ``predicted_work`` is that of all
    passes, halo included, relative to one pass of the whole network over the image. ``tolerance`` reports the error
    that was allowed and found; without it, or if it says so, the result is exact.
    """

    plan: str
    reason: str
    predicted_passes: float
    bands: int
    border: Border
    image: tuple[int, int]
    domain: tuple[int, int]
    padded_because: str
    result: tuple[int, ...]
    tile: tuple[int, int]
    tiles: int
    wanted_pixels: int
    computed_pixels: int
    seconds: StageSeconds
    chunks: ReadCount
    kept_pixels: int
    skipped_tiles: int
    skipped_pixels: int
    processor: str
    budget_bytes: int
    predicted_memory_bytes: int
    peak_memory_bytes: int
    damage: DamageReport = NO_DAMAGE
    nan: NanReport = NO_NAN
    rule: str = ""
    verification: Verification = BY_RULES
    notes: tuple[str, ...] = ()
    passes: tuple[PassReport, ...] = ()
    predicted_work: float = 1.0
    statistics: FixedStatistics | None = None
    tolerance: ToleranceReport | None = None
    lanes: int = 1

    @property
    def exact(self) -> bool:
        """Whether the result equals one pass."""
        return self.tolerance is None or self.tolerance.exact

    @property
    def megapixels_per_second(self) -> float:
        """Megapixels of the result a second, over the total time."""
        return self.wanted_pixels / 1e6 / max(self.seconds.total, 1e-9)
