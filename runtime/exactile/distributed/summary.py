"""The summary of a run of one image on a cluster."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import exactile
from exactile.pipeline.stored_values import NO_NAN, NanReport
from exactile.request.meaning import nan_object
from exactile.sinks.protocol import ResultSpec
from exactile.sources.address import shown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSummary:
    """What a run on a cluster did. ``workers``: blocks by worker; ``again``: tasks that ran more than once.

    ``shape`` is the tile, or strip rows and band width; ``kept_pixels`` are from an earlier run. ``machines`` are what
    computed, by worker, as plain data: versions and kind of processor. ``record`` is what was run, ``spec`` what the
    result is.
    """

    plan: str
    shape: tuple[int, int]
    image: tuple[int, int]
    blocks: int
    block: tuple[int, int]
    workers: Mapping[str, int]
    again: int
    seconds: float
    wanted_pixels: int
    computed_pixels: int
    kept_pixels: int
    peak_memory_bytes: int
    spec: ResultSpec
    nan: NanReport = NO_NAN
    machines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def megapixels_per_second(self) -> float:
        """Megapixels of the result a second, over the total time."""
        return self.wanted_pixels / 1e6 / max(self.seconds, 1e-9)

    def told(self, *, model: str, image: str, target: Path) -> dict[str, Any]:
        """Return it as plain data, like other runs as far as it is known; sizes are [height, width]."""
        return {
            "model": model,
            "image": shown_name(image),
            "output": str(target),
            "plan": self.plan,
            "tile": list(self.shape),
            "image_size": list(self.image),
            "result_shape": list(self.spec.shape),
            "blocks": self.blocks,
            "block": list(self.block),
            "blocks_again": self.again,
            "workers": dict(self.workers),
            "machines": {name: dict(machine) for name, machine in self.machines.items()},
            "nan": nan_object(self.nan),
            "exact": True,
            "wanted_pixels": self.wanted_pixels,
            "computed_pixels": self.computed_pixels,
            "kept_pixels": self.kept_pixels,
            "computed_over_wanted": round(self.computed_pixels / self.wanted_pixels, 4),
            "seconds": {"total": round(self.seconds, 4)},
            "megapixels_per_second": round(self.megapixels_per_second, 4),
            "peak_memory_bytes": self.peak_memory_bytes,
            "exactile": exactile.__version__,
            "python": platform.python_version(),
        }
