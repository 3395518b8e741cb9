"""``exactile verify``: prove a network's geometry by running the network."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

import exactile
from exactile.bundle.opening import is_bundle
from exactile.cli.error_curve import CurveRequest, curve_object, print_curve
from exactile.cli.exit_status import CHECK_FAILED
from exactile.cli.failures import reported
from exactile.cli.options import (
    AxesOption,
    ChannelsOption,
    LevelOption,
    MeanOption,
    MppOption,
    NoProgressOption,
    OutputNameOption,
    PageOption,
    ScaleOption,
    SeriesOption,
    StdOption,
    TOption,
    ZOption,
)
from exactile.cli.protection import protect_files
from exactile.cli.values import parse_channels, parse_numbers, parse_tile
from exactile.cli.verdict import print_verdict
from exactile.errors import OptionError
from exactile.plan.budget import parse_bytes
from exactile.request.converter import load_converter, load_verifier
from exactile.request.stages import StageBar, Stages
from exactile.sources.address import shown_name
from exactile.sources.protocol import Source
from exactile.tolerance.measure import CurveWish

EXAMPLES = """
**Examples**

`exactile verify unet.onnx`

`exactile verify unet.onnx --image slide.tif --scale 255 --sweep --report proof/`

`exactile verify unet.bundle --erf --image monday.tif --image tuesday.tif`

`exactile verify unet.onnx --memory 2GiB --tile 256x320 --seed 7 --json | jq .tiled_against_whole`

**Exit status**: 0 the claim holds, 1 it fails, 2 or more: it could not be tried.
"""

VerifiedArgument = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="The network: an ONNX file; for --erf also a bundle.", show_default=False),
]


def verify(
    model: VerifiedArgument,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Compare on this image; several, each with --image, for --erf. [default: seeded noise]"),
    ] = None,
    tile: Annotated[
        str | None, typer.Option(metavar="H[xW]", help="Tiles to compare with. [default: small, for many seams]")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also measure the error against halo size and against tile alignment.")
    ] = False,
    erf: Annotated[
        bool,
        typer.Option(
            "--erf",
            help="Also measure the error of smaller halos on these images, and how far pixels influence results. For a "
            "bundle, measure only this, and store it in the bundle, for run --tolerance.",
        ),
    ] = False,
    zones: Annotated[int, typer.Option(min=1, help="Zones of each image that --erf measures.")] = 8,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write index.html with tables and pictures to this folder.")
    ] = None,
    scale: ScaleOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    channels: ChannelsOption = None,
    axes: AxesOption = None,
    level: LevelOption = 0,
    mpp: MppOption = None,
    series: SeriesOption = 0,
    z: ZOption = None,
    t: TOption = None,
    page: PageOption = None,
    output_name: OutputNameOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all noise.")] = 0,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            "-m",
            metavar="SIZE",
            help="Most resident memory of the process, e.g. 2GiB. It limits the part of an image that is compared with "
            "one pass; noise uses at most 2 GiB if that suffices. [default: half of what is free]",
        ),
    ] = None,
    no_progress: NoProgressOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Verify the stride and halo that `inspect` claims by running the network, without its rules.

    Pixels inside and outside the halo are changed to see which outputs follow; the image is segmented tile by
    tile and in one whole pass, and both are compared. A network with statistics of the whole image is run in
    passes, in every possible way, and compared with one pass and with one in float64.
    """
    with reported():
        from exactile.sources.open import open_source

        tile_shape, chosen = parse_tile(tile), parse_channels(channels)
        images = list(image or ())
        opening = {"axes": axes, "channels": chosen, "level": level, "mpp": mpp, "series": series, "z": z, "t": t}
        curve = CurveRequest(
            images=[str(one) for one in images],
            options={**opening, "page": page},
            wish=CurveWish(tile=tile_shape, zones=zones, seed=seed),
            memory_bytes=parse_bytes(memory),
        )
        if is_bundle(model):
            given = {"--scale": scale, "--mean": mean, "--std": std, "--output-name": output_name, "--report": report}
            _of_bundle(model, curve, [name for name, one in given.items() if one is not None], erf=erf,
                       progress=not no_progress, as_json=as_json)  # fmt: skip
            return
        if erf:
            curve.check()
        elif len(images) > 1:
            raise OptionError("one --image is compared; several are for --erf")
        converter, verifier = load_converter(), load_verifier()
        asked = _asked(converter, scale, mean, std)
        if report is not None:
            report_page = report / verifier.PAGE
            protect_files([model], images, files=[(report_page, "--report")])
            verifier.check_directory(report)
        network = converter.load_network(model, output_name=output_name)
        source = open_source(images[0], **curve.options) if images else None
        try:
            with StageBar(enabled=not no_progress) as bar:
                found = verifier.verify(
                    network,
                    source=source,
                    normalization=_normalization(converter, network, asked, source),
                    tile=tile_shape,
                    with_sweep=sweep,
                    seed=seed,
                    memory_bytes=curve.memory_bytes,
                    progress=bar.update,
                )
            measured = None
            if erf:
                network = converter.load_network(model, output_name=output_name)
                with Stages(enabled=not no_progress) as stages:
                    measured = curve.of(
                        lambda dtype: converter.deploy(
                            network, image_dtype=dtype, normalization=asked, output="raw", strips=False
                        ),
                        stages.update,
                    )
        finally:
            if source is not None:
                source.close()
        facts = _facts(model, images)
        written = verifier.write_report(report, found, facts) if report is not None else None
        stated = {**verifier.verification_object(found), "made": facts, "report": str(written) if written else None}
        stated["error_curve"] = None if measured is None else curve_object(measured)
        if as_json:
            typer.echo(json.dumps(stated, indent=2))
        else:
            print_verdict(stated)
            if measured is not None:
                print_curve(stated["error_curve"])
        if not found.holds:
            raise typer.Exit(CHECK_FAILED)


def _asked(converter: ModuleType, scale: list[str] | None, mean: list[str] | None, std: list[str] | None) -> Any:
    """Return the converter's ``Normalization``; None where no option was given."""
    if not (scale or mean or std):
        return None
    return converter.Normalization(
        scale=parse_numbers("scale", scale, 1.0),
        mean=parse_numbers("mean", mean, 0.0),
        std=parse_numbers("std", std, 1.0),
    )


def _normalization(converter: ModuleType, network: Any, asked: Any, source: Source | None) -> Any:
    """Return what was asked for, or what the model's file declares for the image's samples; noise is fed unchanged."""
    if source is None:
        return asked or converter.Normalization()
    return converter.normalization_for(network, asked, str(source.dtype))


def _of_bundle(model: Path, curve: CurveRequest, fixed: list[str], *, erf: bool, progress: bool, as_json: bool) -> None:
    """Measure the error of smaller halos, and store it in the bundle."""
    folder = model if model.is_dir() else model.parent
    if not erf:
        raise OptionError(
            f"{model} is a bundle, which does not contain the original network: give the ONNX file that it was "
            "converted from; or use --erf --image IMAGE, to measure the error of smaller halos"
        )
    if fixed:
        raise OptionError(f"{', '.join(fixed)}: not available for the bundle {model}; leave it out")
    with Stages(enabled=progress) as stages:
        measured, path = curve.of_bundle(folder, stages.update)
    told: dict[str, Any] = {"model": str(model), "error_curve": curve_object(measured), "kept": str(path)}
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        print_curve(told["error_curve"])
        typer.echo(f"kept in {path}, for exactile run {model} IMAGE -o RESULT --tolerance ...")


def _facts(model: Path, images: list[Path]) -> dict[str, Any]:
    """Return what is needed to reproduce the result."""
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "command": shlex.join(["exactile", *sys.argv[1:]]),
        "model": str(model),
        "model_sha256": digest,
        "image": ", ".join(shown_name(one) for one in images) if images else "noise",
        "exactile": exactile.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("onnxruntime", "onnx", "onnx-ir", "numpy")},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
