"""What a run did, as plain data: the output of ``--json``, and the records beside the results of many images."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import exactile
from exactile.request.damage import damage_object
from exactile.request.meaning import nan_object
from exactile.sources.address import shown_name

if TYPE_CHECKING:
    from exactile.passes.fixed import FixedStatistics
    from exactile.runs.summary import Summary


def versions() -> dict[str, str]:
    """Return the versions of everything that determines results; of engines, those that were imported."""
    import imagecodecs
    import numpy as np
    import tifffile

    return {
        "exactile": exactile.__version__,
        "python": platform.python_version(),
        **{name: str(sys.modules[name].__version__) for name in ("onnxruntime", "openvino") if sys.modules.get(name)},
        "numpy": np.__version__,
        "tifffile": tifffile.__version__,
        "imagecodecs": imagecodecs.__version__,
    }


def summary_object(summary: Summary, *, model: Path | str, image: Path | str, target: Path) -> dict[str, Any]:
    """Return the summary as plain data; sizes are [height, width]."""
    seconds = summary.seconds
    return {
        "model": str(model),
        "image": shown_name(image),
        "output": str(target),
        "plan": summary.plan,
        "reason": summary.reason,
        "predicted_passes": round(summary.predicted_passes, 4),
        "bands": summary.bands,
        "lanes": summary.lanes,
        "processor": summary.processor,
        "border": summary.border,
        "tile": list(summary.tile),
        "tiles": summary.tiles,
        "image_size": list(summary.image),
        "padded_size": list(summary.domain),
        "padded_because": summary.padded_because or None,
        "result_shape": list(summary.result),
        "damaged": damage_object(summary.damage),
        "notes": list(summary.notes),
        "nan": nan_object(summary.nan),
        "rule": summary.rule,
        "verification": asdict(summary.verification),
        "exact": summary.exact,
        "tolerance": None if summary.tolerance is None else summary.tolerance.plain,
        "wanted_pixels": summary.wanted_pixels,
        "computed_pixels": summary.computed_pixels,
        "kept_pixels": summary.kept_pixels,
        "skipped_tiles": summary.skipped_tiles,
        "skipped_pixels": summary.skipped_pixels,
        "passes": [asdict(one) for one in summary.passes],
        "predicted_work": round(summary.predicted_work, 4),
        "statistics": _statistics_object(summary.statistics),
        "computed_over_wanted": round(summary.computed_pixels / summary.wanted_pixels, 4),
        "seconds": {
            "total": round(seconds.total, 4),
            "measure": round(seconds.measure, 4),
            "open": round(seconds.open, 4),
            "read": round(seconds.read, 4),
            "infer": round(seconds.infer, 4),
            "write": round(seconds.write, 4),
        },
        "megapixels_per_second": round(summary.megapixels_per_second, 4),
        "chunks_decoded": summary.chunks.chunks_decoded,
        "chunks_stored": summary.chunks.chunks_stored,
        "memory_budget_bytes": summary.budget_bytes,
        "predicted_memory_bytes": summary.predicted_memory_bytes,
        "peak_memory_bytes": summary.peak_memory_bytes,
        "exactile": exactile.__version__,
        "python": platform.python_version(),
    }


def _statistics_object(statistics: FixedStatistics | None) -> dict[str, Any] | None:
    """Return the given statistics; None if the result uses the image's own, or none."""
    if statistics is None:
        return None
    return {
        "file": statistics.file,
        "images": len(statistics.images),
        "pixels": statistics.pixels,
        "sha256": statistics.identity,
        "of_this_image": False,
    }
