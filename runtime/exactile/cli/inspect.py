"""``exactile inspect``: how a network can be tiled, or why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from exactile.cli.converter import load_converter
from exactile.cli.failures import reported

if TYPE_CHECKING:
    from exactile.geometry import Geometry

EXAMPLES = """
**Examples**

`exactile inspect unet.onnx`

`exactile inspect unet.onnx --json | jq .halo`
"""


def inspect(
    model: Annotated[Path, typer.Argument(help="The network: an ONNX file.", show_default=False)],
    output_name: Annotated[str | None, typer.Option(help="Which of the model's outputs. [default: the first]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Print a network's stride, halo and scale, read off its graph; or the obstacles to tiling it exactly."""
    with reported():
        converter = load_converter()
        inspection = converter.inspect_network(converter.load_network(model, output_name=output_name))
        if as_json:
            typer.echo(json.dumps(inspection_object(inspection, model), indent=2))
        else:
            _print_people(inspection, model)


def inspection_object(inspection: Any, model: Path) -> dict[str, Any]:
    """``Inspection`` of the converter as plain data."""
    geometry: Geometry | None = inspection.geometry
    both = {"y": geometry.y, "x": geometry.x} if geometry else {}
    return {
        "model": str(model),
        "tileable": geometry is not None,
        "stride": {axis: one.stride for axis, one in both.items()} or None,
        "halo": {
            "top": geometry.y.halo_before,
            "bottom": geometry.y.halo_after,
            "left": geometry.x.halo_before,
            "right": geometry.x.halo_after,
        }
        if geometry
        else None,
        "scale": {axis: str(one.scale) for axis, one in both.items()} or None,
        "obstacles": [
            {"node": found.node, "op": found.op, "reason": found.reason, "remedy": found.remedy}
            for found in inspection.obstacles
        ],
        "inputs": [_tensor(tensor) for tensor in inspection.inputs],
        "outputs": [_tensor(tensor) for tensor in inspection.outputs],
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _print_people(inspection: Any, model: Path) -> None:
    console = Console(highlight=False)
    geometry: Geometry | None = inspection.geometry
    table = Table.grid(padding=(0, 2))
    table.add_row("model", model.name)
    for title, tensors in (("input", inspection.inputs), ("output", inspection.outputs)):
        for tensor in tensors:
            table.add_row(title, f"{tensor.name}  {tensor.dtype}  {tuple(tensor.shape)}")
    table.add_row("tileable", "yes, exactly" if geometry else "no")
    if geometry is not None:
        y, x = geometry.y, geometry.x
        table.add_row("stride", f"{y.stride} x {x.stride} pixels (height x width)")
        table.add_row(
            "halo", f"top {y.halo_before}, bottom {y.halo_after}, left {x.halo_before}, right {x.halo_after} pixels"
        )
        table.add_row("scale", f"{y.scale} x {x.scale} (output size / input size)")
        if y.remainder or x.remainder:
            table.add_row("sizes", f"{y.remainder} + n * {y.stride} x {x.remainder} + n * {x.stride} pixels")
    console.print(table, soft_wrap=True)
    for found in inspection.obstacles:
        console.print(f"\nobstacle  {found.op} '{found.node}'", markup=False, soft_wrap=True)
        console.print(f"  reason  {found.reason}", markup=False, soft_wrap=True)
        console.print(f"  remedy  {found.remedy}", markup=False, soft_wrap=True)
