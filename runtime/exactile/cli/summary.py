"""Print what a run did, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from exactile.plan.budget import format_bytes
from exactile.request.damage import box_list
from exactile.request.told import summary_object

if TYPE_CHECKING:
    from exactile.runs.summary import Summary


def print_summary(summary: Summary, *, model: Path, image: Path | str, target: Path, as_json: bool) -> None:
    """Print one JSON object, or a table, on stdout."""
    if as_json:
        typer.echo(json.dumps(summary_object(summary, model=model, image=image, target=target), indent=2))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(summary, target):
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=True).print(table)


def print_line(told: dict[str, Any]) -> None:
    """Print one image of many on stdout; failures are reported at the end."""
    if "error" in told:
        return
    if told.get("complete"):
        typer.echo(f"{told['output']}  was complete")
        return
    height, width = told["image_size"]
    seconds, speed = told["seconds"]["total"], told["megapixels_per_second"]
    error = "" if told["exact"] else f", not exact: error {told['tolerance']['found']:.2g} found"
    typer.echo(
        f"{told['output']}  {height} x {width} pixels, {told['plan']}, {seconds:.1f} s, {speed:.2f} Mpx/s{error}"
    )


def _rows(summary: Summary, target: Path) -> list[tuple[str, str]]:
    seconds = summary.seconds
    height, width = summary.image
    wanted, computed = summary.wanted_pixels, summary.computed_pixels
    pixels = f"{wanted / 1e6:.2f} M wanted, {computed / 1e6:.2f} M computed ({computed / wanted:.3f}x)"
    busy = f"read {seconds.read:.2f}, infer {seconds.infer:.2f}, write {seconds.write:.2f}"
    memory = f"peak {format_bytes(summary.peak_memory_bytes)} of {format_bytes(summary.budget_bytes)} allowed"
    rows = [
        ("output", f"{target} {tuple(summary.result)}"),
        ("image", f"{height} x {width} pixels"),
        ("plan", f"{summary.plan}: {_pieces(summary)}, border {summary.border}"),
        ("why", summary.reason),
        ("rule", summary.rule),
        ("exact", summary.verification.sentence if summary.tolerance is None else summary.tolerance.sentence),
        ("device", summary.processor),
        ("pixels", pixels),
        ("seconds", f"{seconds.total:.2f} total; busy: {busy}"),
        ("speed", f"{summary.megapixels_per_second:.2f} Mpx/s"),
        ("memory", memory),
    ]
    if summary.domain != summary.image:
        mode = "reflect" if summary.border == "model" else summary.border
        padded = (
            f"to {summary.domain[0]} x {summary.domain[1]} pixels ({mode}), {summary.padded_because}; cropped again"
        )
        rows.insert(2, ("padded", padded))
    if summary.passes:
        found = f"{len(summary.passes)} before the result's, for statistics of the whole image"
        work = f"{summary.predicted_work:.2f} times the work of one pass predicted, with the result"
        kept = sum(one.kept_tiles for one in summary.passes)
        resumed = f"; {kept} of their tiles were kept by the run that this one resumed" if kept else ""
        rows.append(("passes", f"{found}, in {seconds.measure:.2f} s; {work}{resumed}"))
    if summary.statistics is not None:
        rows.append(("statistics", f"of {summary.statistics.told}; not of this image"))
    if summary.kept_pixels:
        rows.append(("kept", f"{summary.kept_pixels / 1e6:.2f} M pixels of the run that was resumed"))
    if summary.skipped_tiles:
        share = summary.skipped_pixels / (summary.result[-2] * summary.result[-1])
        rows.append(("background", f"{summary.skipped_tiles} tile(s) not computed, {share:.1%} of the result"))
    if summary.chunks.chunks_stored:
        rows.append(("chunks", f"{summary.chunks.chunks_decoded} decoded of {summary.chunks.chunks_stored} stored"))
    if summary.nan.first is not None:
        y, x = summary.nan.first
        rows.append(("NaN", f"{summary.nan.pixels} pixels, the first at row {y}, column {x}"))
    if summary.damage.boxes:
        rows.append(("damaged", f"{summary.damage.pixels} pixels filled: {box_list(summary.damage.boxes)}"))
    rows += [("note", note) for note in summary.notes]
    return rows


def _pieces(summary: Summary) -> str:
    height, width = summary.tile
    lanes = f" in {summary.lanes} lanes" if summary.lanes > 1 else ""
    if summary.plan != "strip":
        return f"{summary.tiles} tile(s) of {height} x {width}{lanes}"
    strips = summary.tiles // summary.bands
    bands = f" in {summary.bands} bands" if summary.bands > 1 else ""
    return f"{strips} strips of up to {height} x {width}{bands}{',' if lanes else ''}{lanes}"
