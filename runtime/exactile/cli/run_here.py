"""``exactile run`` on this machine: one image into a file, or many into a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from exactile.cli.run_request import RunRequest
from exactile.cli.summary import print_line, print_summary
from exactile.errors import SinkError
from exactile.request.damage import warn_of_damage
from exactile.request.meaning import warn_of_nan
from exactile.request.progress import Bar, ManyBars
from exactile.runs.image_run import Watcher


def run_one(request: RunRequest, image: str, target: Path, *, progress: bool, as_json: bool) -> None:
    """Run one image, into the file or folder ``target``."""
    from exactile.cli.protection import protect_run
    from exactile.sinks.open import check_target
    from exactile.sinks.protocol import ResumableSink

    sink = request.open_sink(target)
    protect_run(request, [image], [target])
    check_target(target, overwrite=bool(request.sinks["overwrite"]))
    request.load()
    source = request.open_source(image)
    try:
        with Bar(Path(image).name, enabled=progress) as bar:
            watcher = Watcher(planned=bar.start, progress=bar.advance, measuring=bar.measure)
            run = request.image_run(source, sink, watcher, image, target)
            summary = run.run()
    except BaseException:
        if isinstance(sink, ResumableSink) and sink.keeps:
            typer.echo(f"what is done of {target} is kept: resume it with --resume", err=True)
        raise
    finally:
        source.close()
        request.close()
    print_summary(summary, model=request.model.path, image=image, target=target, as_json=as_json)
    warn_of_damage(summary.damage, image)
    warn_of_nan(summary.nan, run.model.contract.result, image)
    request.write_trace()


def run_many(
    request: RunRequest,
    paths: list[str],
    folder: Path,
    *,
    suffix: str,
    recursive: bool,
    overwrite: bool,
    progress: bool,
    as_json: bool,
) -> None:
    """Run many images, into ``folder``; report failures at the end."""
    from exactile.cli.protection import protect_run
    from exactile.cli.run_many import ManyImages, prepare_folder, tell_failures
    from exactile.runs.batch import worth_side_by_side

    suffix = suffix if suffix.startswith(".") else f".{suffix}"
    found = prepare_folder(paths, folder, suffix, recursive=recursive)
    images = found.images
    request.keep_engine, request.side_by_side = True, worth_side_by_side(len(images))
    bars = ManyBars(len(images), enabled=progress)
    many = ManyImages(request=request, found=found, folder=folder, suffix=suffix, overwrite=overwrite, bars=bars)
    protect_run(request, images, [many.target(image) for image in images])
    request.load()
    told: list[dict[str, Any]] = []
    try:
        failed = many.run(told.append if as_json else print_line)
    finally:
        request.close()
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    try:
        request.write_trace()
    except SinkError as error:
        if not failed:
            raise
        typer.echo(f"error: {error}", err=True)
    tell_failures(failed, len(images))
