"""Print the results of ``exactile inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from exactile.cli.declared_text import declared_rows
from exactile.cli.obstacle_text import obstacle_lines
from exactile.cli.size_memory import SizeMemory
from exactile.cli.size_text import sizes_in_words
from exactile.plan.budget import format_bytes
from exactile.plan.strip_costs import strip_costs
from exactile.plan.tile_costs import tile_costs

if TYPE_CHECKING:
    from exactile.contract import Verification
    from exactile.geometry import Geometry

MOST_LISTED = 4
"""Most statistics of a pass that are named."""


def print_inspection(
    inspection: Any, model: Path, known: Verification | None, at: SizeMemory | None = None, *, verbose: bool = False
) -> None:
    """Print the converter's ``Inspection`` on stdout, as tables.

    ``known``: how its claim is known to hold; ``at``: the memory for an image of one size; ``verbose``: every node of
    each kind of obstacle, and what follows from it.
    """
    console = Console(highlight=False, soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(inspection, model, known):
        table.add_row(name, escape(value))
    if at is not None:
        table.add_row("memory", escape(at.sentence))
    console.print(table)
    if inspection.geometry is not None:
        console.print(_tile_table(inspection))
        if inspection.strips is not None:
            console.print(_strip_table(inspection))
        console.print(_path_table(inspection.profile))
    if inspection.passes is not None:
        console.print(_passes_table(inspection.passes))
        if not verbose:
            return
    for found in inspection.obstacles:
        for line in obstacle_lines(found, verbose=verbose):
            console.print(line, markup=False)


def _rows(inspection: Any, model: Path, known: Verification | None) -> Iterator[tuple[str, str]]:
    geometry: Geometry | None = inspection.geometry
    several = len(inspection.inputs) > 1
    yield "model", model.name
    for title, tensors in (("input", inspection.inputs), ("output", inspection.outputs)):
        for tensor in tensors:
            dealt = f"  channels {_channels(tensor)} of the image" if title == "input" and several else ""
            yield title, f"{tensor.name}  {tensor.dtype}  {tuple(tensor.shape)}{dealt}"
    yield "tileable", "yes, exactly" if geometry else _passes_in_words(inspection.passes)
    if known is not None:
        yield "known", known.sentence
    if geometry is None:
        refused = inspection.no_one_pass_reason
        yield "one pass", f"no: {refused}" if refused else "yes, with --plan whole (or auto), where it fits the memory"
        yield from _probe_rows(inspection)
    if geometry is not None:
        y, x = geometry.y, geometry.x
        halo = f"top {y.halo_before}, bottom {y.halo_after}, left {x.halo_before}, right {x.halo_after} pixels"
        yield "stride", f"{y.stride} x {x.stride} pixels (height x width)"
        yield "halo", halo
        yield "scale", f"{y.scale} x {x.scale} (output size / input size)"
        yield "offset", f"{y.origin} x {x.origin} pixels (of the output's first pixel in the image)"
        yield "sizes", sizes_in_words(geometry)
    if inspection.result is not None:
        yield inspection.result.kind, f"{inspection.result.stored_dtype}: {inspection.result.rule}"
        if inspection.result.doubt:
            yield "note", inspection.result.doubt
    if inspection.declared is not None:
        yield from declared_rows(inspection.declared)
    if geometry is not None:
        yield "strips", _strips_in_words(inspection)
    yield "cost", _cost_in_words(inspection.cost)
    yield "weights", f"{inspection.cost.parameters:,} parameters"


def _probe_rows(inspection: Any) -> Iterator[tuple[str, str]]:
    found = inspection.probed
    if found is not None:
        shown = (
            f"runs show it to be local within {found.reach} pixels, with a period of {found.y.period} x "
            f"{found.x.period}; no rule proves it. --trust-probe (of run and convert) takes tiles with that halo and "
            f"{max(found.y.margin, found.x.margin)} pixels more: not proven"
        )
        yield "by runs", shown
    elif inspection.not_probed_reason:
        yield "by runs", inspection.not_probed_reason


def _passes_in_words(passes: Any) -> str:
    if passes is None:
        return "no"
    before, times = len(passes.passes), passes.times
    work = f"; each from the image, {float(times):.1f} times the work of one" if times is not None else ""
    return (
        f"yes, exactly, in {before + 1} passes: {before} for statistics of the whole image, then the result{work}; "
        f"with maps that are kept between them, {passes.kept_times:.1f} times (predicted, without halo; "
        f"up to {passes.kept_bytes:.0f} bytes a pixel are kept)"
    )


def _passes_table(passes: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("pass", justify="right")
    table.add_column("finds", overflow="fold")
    table.add_column("halo: top, bottom, left, right", justify="right")
    each = [(one.geometry, [f"{found.kind} of {found.of}" for found in one.statistics]) for one in passes.passes]
    for number, (geometry, found) in enumerate([*each, (passes.geometry, ["the result"])], start=1):
        y, x = geometry.y, geometry.x
        listed = ", ".join(found[:MOST_LISTED]) + (
            f" and {len(found) - MOST_LISTED} more" if found[MOST_LISTED:] else ""
        )
        halo = f"{y.halo_before}, {y.halo_after}, {x.halo_before}, {x.halo_after}"
        table.add_row(str(number), escape(listed), halo)
    return table


def _channels(tensor: Any) -> str:
    first, stop = tensor.image_channels
    return f"{first}" if stop == first + 1 else f"{first} to {stop - 1}"


def _cost_in_words(cost: Any) -> str:
    if cost.mac_per_pixel is None:
        return "not known from the graph"
    per_pixel = _grouped(cost.mac_per_pixel)
    at = f", in one pass over {cost.at[0]} x {cost.at[1]} pixels" if cost.at else ""
    return f"{per_pixel} multiply-accumulates for each image pixel{at}"


def _tile_table(inspection: Any) -> Table:
    tiles = tile_costs(inspection.geometry, inspection.memory)
    height, width = tiles[0].image
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="")
    table.add_column("tile")
    table.add_column("memory", justify="right")
    table.add_column("per megapixel", justify="right")
    table.add_column(f"computed/wanted at {height} x {width}", justify="right")
    for tile in tiles:
        total, each, ratio = tile.memory_bytes, tile.memory_bytes_per_megapixel, tile.computed_over_wanted
        table.add_row(
            f"{tile.tile[0]} x {tile.tile[1]}",
            format_bytes(total) if total is not None else "?",
            format_bytes(each) if each is not None else "?",
            f"{ratio:.3f}" if ratio is not None else "too small for the halo",
        )
    return table


def _strips_in_words(inspection: Any) -> str:
    strips = inspection.strips
    if strips is None:
        return f"no: {inspection.no_strips_reason}"
    return (
        f"lag {strips.lag} rows; {len(strips.carries)} maps carried; first strip {strips.startup_rows} rows or more, "
        f"last {strips.least_last_rows} or more"
    )


def _strip_table(inspection: Any) -> Table:
    """Return the table of strips: the tile table has computed/wanted as its time in passes, this one the prediction."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("strip")
    table.add_column("memory", justify="right")
    table.add_column("carries", justify="right")
    table.add_column("predicted time, in passes", justify="right")
    for cost in strip_costs(inspection.geometry, inspection.strips):
        table.add_row(
            f"{cost.rows} rows x {cost.width}",
            format_bytes(cost.memory_bytes),
            format_bytes(cost.carry_bytes),
            f"{cost.passes:.3f}",
        )
    return table


def _path_table(profile: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{profile.side} halo, from the output to the image", overflow="fold")
    table.add_column("operator")
    table.add_column("adds", justify="right")
    table.add_column("halo", justify="right")
    for group in _repeats(profile.steps):
        first, last, count = group[0], group[-1], len(group)
        nodes = first.node if count == 1 else f"{first.node} ... {last.node}"
        times = f"{count} x " if count > 1 else ""
        table.add_row(escape(nodes), first.op, f"{times}{_grouped(first.adds)}", _grouped(last.cumulative))
    return table


def _repeats(steps: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield runs of steps with the same operator that add the same."""
    for _, group in groupby(steps, key=lambda step: (step.op, step.adds)):
        yield list(group)


def _grouped(value: Fraction) -> str:
    return f"{int(value):,}" if value.denominator == 1 else f"{float(value):,.6g}"
