"""Print a bundle, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exactile.bundle.translation import contract_from
from exactile.cli.accuracy_text import accuracy_rows
from exactile.cli.size_text import sizes_in_words
from exactile.plan.budget import format_bytes

if TYPE_CHECKING:
    from exactile.bundle.contract_file import ContractFile
    from exactile.bundle.network_parts import AxisPart
    from exactile.bundle.opening import Bundle
    from exactile.bundle.sample import SampleRun
    from exactile.contract.built_engine import BuiltEngine
    from exactile.planning import PlanName


def print_converted(converted: Any, outcomes: Sequence[Any], *, as_json: bool) -> None:
    """Print what ``exactile convert`` wrote, and which engines are beside it."""
    if as_json:
        _print_json(converted.file, [outcome.engine for outcome in outcomes])
        return
    rows = _rows(converted.path, converted.file)
    if converted.agreement is not None:
        truth = "the package's test result" if converted.file.source.startswith("BioImage") else "the framework"
        rows.insert(3, ("checked", f"ONNX Runtime against {truth}: {converted.agreement}"))
    _print_table([*rows, *map(_outcome_row, outcomes)])


def print_engines(folder: Path, outcomes: Sequence[Any], *, as_json: bool) -> None:
    """Print the engines that ``exactile convert`` built beside a bundle, or found there."""
    if as_json:
        from exactile.bundle.opening import open_bundle

        opened = open_bundle(folder)
        _print_json(opened.file, opened.model.engines, opened.model.engines_refused)
        return
    _print_table([("bundle", str(folder)), *map(_outcome_row, outcomes)])


def print_bundle(bundle: Bundle, found: SampleRun | None, *, as_json: bool) -> None:
    """Print what ``exactile info`` reports of a bundle."""
    from exactile.bundle.engine_files import is_intact

    model = bundle.model
    if as_json:
        _print_json(bundle.file, model.engines, model.engines_refused)
        return
    rows = [
        *_rows(bundle.path, bundle.file),
        ("hashes", f"{len(bundle.file.files)} files are unchanged since conversion"),
    ]
    rows += [("engine" if is_intact(engine) else "CHANGED", engine_text(engine)) for engine in model.engines]
    rows += [("not used", reason) for reason in model.engines_refused]
    if model.error_curve is not None:
        curve = model.error_curve
        names = ", ".join(image.name for image in curve.images)
        rows.append(("error curve", f"{len(curve.points)} halos to {curve.points[-1].halo_px} pixels, on {names}"))
    if model.tuning is not None:
        tuned = model.tuning
        rows.append(("tuned", f"{len(tuned.shapes)} shapes, on {tuned.machine}, {tuned.threads} threads"))
    if found is not None:
        rows += [("test", _test_line(plan, found)) for plan in found.differing]
        rows.append(("", "passed" if found.holds else "FAILED: this machine computes another result"))
    _print_table(rows)


def _rows(path: Path, file: ContractFile) -> list[tuple[str, str]]:
    y, x = file.geometry.y, file.geometry.x
    size = sum(part.bytes for part in file.files.values())
    rows = [
        ("bundle", f"{path} ({format_bytes(size)}, {file.made_by})"),
        ("model", f"{file.model} ({file.source}), {file.precision}"),
        ("image", f"(height, width, {file.image.channels}) {file.image.dtype}; {_normalization(file)}"),
        ("result", _result(file)),
        *([("rule", file.result.rule)] if file.result.rule else []),
        ("stride", f"{y.stride} x {x.stride} pixels (height x width)"),
        ("halo", f"{_halo('top', 'bottom', y)}, {_halo('left', 'right', x)} pixels"),
    ]
    if (y.scale, x.scale) != ("1", "1"):
        rows.append(("scale", f"{y.scale} x {x.scale} (output size / input size)"))
    if file.levels:
        count = sum(len(level.statistics) for level in file.levels)
        rows.append(
            ("passes", f"{len(file.levels)} over the image for {count} statistics of all of it, then the result")
        )
    rows.append(("sizes", sizes_in_words(contract_from(file).geometry)))
    rows.append(("tile", f"{file.tile.shape[0]} x {file.tile.shape[1]} pixels, fixed in {file.tile.file}"))
    if file.strips is None:
        rows.append(("strips", f"none: {file.no_strips_reason}"))
    else:
        rows.append(("strips", f"{len(file.strips.carries)} carries, results {file.strips.lag} rows behind"))
    rows.append(("exact", contract_from(file).verification.sentence))
    if file.classes:
        rows.append(("classes", ", ".join(f"{index} {part.name}" for index, part in enumerate(file.classes))))
    if file.accuracy is not None:
        rows += accuracy_rows(file.accuracy)
    rows += [("note", note) for note in (*file.notes, file.result.doubt) if note]
    return rows


def _halo(first: str, last: str, axis: AxisPart) -> str:
    return f"{first} {max(0, axis.before)}, {last} {max(0, axis.after)}"


def _normalization(file: ContractFile) -> str:
    statistics = file.image.statistics
    if statistics is not None:
        of = "each channel" if statistics.per_channel else "all channels"
        if statistics.kind == "zscore":
            return f"(sample - mean) / deviation, of {of} of the whole image"
        return f"percentiles {statistics.low:g} to {statistics.high:g} of {of} of the whole image become 0 to 1"
    norm = file.normalization
    if (norm.scale, norm.mean, norm.std) == ((1.0,), (0.0,), (1.0,)):
        return "as stored"
    numbers = [", ".join(f"{value:g}" for value in values) for values in (norm.scale, norm.mean, norm.std)]
    return f"(sample / [{numbers[0]}] - [{numbers[1]}]) / [{numbers[2]}]"


def _result(file: ContractFile) -> str:
    result = file.result
    dtype = result.stored or result.dtype
    if result.kind == "labels":
        return f"(height, width) {dtype} labels"
    return f"({result.channels}, height, width) {dtype} {result.kind}"


def _test_line(plan: PlanName, found: SampleRun) -> str:
    return f"{plan}: {found.differing[plan]} of {found.pixels} values differ, max-abs {found.max_abs[plan]:.2g}"


def _print_table(rows: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, Text(value))
    Console(highlight=False, soft_wrap=True).print(table)


def _print_json(file: ContractFile, engines: Sequence[BuiltEngine] = (), refused: Sequence[str] = ()) -> None:
    """Return the contract, and ``engines`` and ``engines_refused``, which are not part of it, if there are any."""
    import msgspec

    from exactile.bundle.contract_file import encode_contract

    if not engines and not refused:
        typer.echo(encode_contract(file).decode(), nl=False)
        return
    more = {"engines": [_engine_data(engine) for engine in engines], "engines_refused": list(refused)}
    data = msgspec.json.encode({**msgspec.to_builtins(file), **more})
    typer.echo(msgspec.json.format(data, indent=2).decode())


def engine_text(engine: BuiltEngine) -> str:
    """Return an engine as one line for people."""
    least, most = engine.rows
    rows = str(least) if least == most else f"{least} to {most}"
    what = "tile" if engine.role == "tile" else f"{engine.role} strip"
    what += f" of pass {engine.level}" if engine.level is not None else ""
    batch = f"{engine.batch} x " if engine.batch > 1 else ""
    gpus = ", ".join(f"{major}.{minor}" for major, minor in engine.compute_capabilities)
    return (
        f"{engine.precision} {what}, {batch}{rows} x {engine.columns} pixels, {engine.backend} "
        f"{engine.backend_version}, compute capability {gpus} ({format_bytes(engine.plan_bytes)})"
    )


def _outcome_row(outcome: Any) -> tuple[str, str]:
    checked = f"; on the CPU, {outcome.agreement}" if outcome.agreement else ""
    return "engine", f"{engine_text(outcome.engine)}: {outcome.state} in {outcome.seconds:.1f} s{checked}"


def _engine_data(engine: BuiltEngine) -> dict[str, Any]:
    return {
        **asdict(engine),
        "inputs": {name: asdict(spec) for name, spec in engine.inputs.items()},
        "outputs": {name: asdict(spec) for name, spec in engine.outputs.items()},
        "plan": str(engine.plan),
    }
