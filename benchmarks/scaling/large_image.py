"""Images of gigapixels: memory within a budget, each stored chunk decoded once; the speed of all but inference."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import tifffile

from benchmarks.harness.record import Table
from benchmarks.harness.worker import run_worker
from tests.runs.test_bounded_memory import write_slide
from tests.support.command import run_json
from tests.support.nets import onnx_file

MIB = 1 << 20
BUDGET_BYTES = 2 << 30
TILE = 2048
BOUNDED = (
    "image", "network", "plan", "tile", "peak MiB|.0f", "chunks decoded / stored", "computed / wanted|.3f",
    "total / engine busy|.3f", "Mpx/s|.2f",
)  # fmt: skip
FREE = (
    "image", "output", "seconds|.1f", "Mpx/s|.0f", "MB/s read|.0f", "read, engine, write busy s", "peak MiB|.0f",
    "tifffile decoding alone, s|.1f",
)  # fmt: skip


def bounded(place: Path, sides: list[int]) -> Table:
    """Measure the command line on JPEG BigTIFFs, with a small network."""
    note = f"`--memory {BUDGET_BYTES >> 30}GiB`; JPEG TIFF, RGB; the U-Net has 8 features and depth 1."
    table = Table(title="Large images within a budget", columns=BOUNDED, note=note)
    model = onnx_file(place, "unet_d1_rgb")
    for side in sides:
        slide = place / "slide.tif"
        write_slide(slide, side, side)
        for plan in ("tile", "strip") if side == min(sides) else ("tile",):
            options = ("-o", place / "labels.tif", "--memory", f"{BUDGET_BYTES >> 30}GiB", "--scale", 255)
            summary = run_json(model, slide, *options, "--plan", plan, "--overwrite")
            seconds = summary["seconds"]
            table.add(
                f"{side} x {side}",
                "U-Net",
                plan,
                " x ".join(map(str, summary["tile"])),
                summary["peak_memory_bytes"] / MIB,
                f"{summary['chunks_decoded']} / {summary['chunks_stored']}",
                summary["computed_over_wanted"],
                seconds["total"] / seconds["infer"],
                summary["megapixels_per_second"],
            )
        slide.unlink()
    return table


def free(place: Path, sides: list[int], outputs: list[str]) -> Table:
    """Measure with an engine that costs nothing: reading, cropping, journal, pyramid."""
    note = f"`--memory {BUDGET_BYTES >> 30}GiB`, tiles of {TILE}, resumable results with pyramids."
    table = Table(title="When inference costs nothing", columns=FREE, note=note)
    for side in sides:
        slide = place / "slide.tif"
        write_slide(slide, side, side)
        decoding_s = tifffile_seconds(slide)
        for output in outputs if side == max(sides) else outputs[:1]:
            request = {"image": str(slide), "output": str(place / f"labels.{output}"), "memory_bytes": BUDGET_BYTES}
            found = run_worker("benchmarks.scaling.free_engine", {**request, "tile": TILE})
            total_s, megapixels = found["total_s"], side**2 / 1e6
            busy = " / ".join(f"{found[f'{stage}_s']:.1f}" for stage in ("read", "infer", "write"))
            table.add(f"{side} x {side}", f".{output}", total_s, megapixels / total_s, 3 * megapixels / total_s, busy,
                      found["peak_bytes"] / MIB, decoding_s)  # fmt: skip
            for left in place.glob("labels.*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        slide.unlink()
    return table


def tifffile_seconds(path: Path) -> float:
    """Measure tifffile's decoding of the whole page segment by segment, in threads."""
    begin = time.perf_counter()
    with tifffile.TiffFile(path) as tiff:
        for _segment in tiff.pages[0].segments(maxworkers=2):
            pass
    return time.perf_counter() - begin
