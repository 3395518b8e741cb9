"""``exactile run`` over many images: one engine, and a list of failures at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from exactile.cli.exit_status import INTERNAL_ERROR
from exactile.cli.run_request import RunRequest
from exactile.errors import ExactileError, OptionError
from exactile.request.damage import warn_of_damage
from exactile.request.meaning import warn_of_nan
from exactile.request.progress import ManyBars
from exactile.request.records import check_complete, pending_path, record_path, write_record
from exactile.request.told import summary_object, versions
from exactile.runs.batch import Outcome, run_all
from exactile.runs.image_run import ImageRun
from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.resume.unfinished import is_something_left
from exactile.sources.listing import FoundImages, describe_passed_over, find_images
from exactile.sources.protocol import Source

FORMATS = (".tif", ".ome.tif", ".zarr", ".npy", ".dcm")


@dataclass(slots=True, kw_only=True)
class ManyImages:
    """Images, and the folder for their results: named as the images, and each with a ``.json`` beside it.

    Results of nested folders go into folders of the same names.
    """

    request: RunRequest
    found: FoundImages
    folder: Path
    suffix: str
    overwrite: bool
    bars: ManyBars
    _sources: dict[Path | str, Source] = field(default_factory=dict)
    _runs: dict[Path | str, ImageRun] = field(default_factory=dict)

    def run(self, report: Callable[[dict[str, Any]], None]) -> list[Outcome[Path | str]]:
        """Run all images; ``report`` gets each outcome as plain data. Return those that failed."""
        failed = []
        with self.bars:
            for ended in run_all(self.found.images, self._prepare):
                run = self._runs.pop(ended.name, None)
                source = self._sources.pop(ended.name, None)
                if source is not None:
                    source.close()
                told, outcome = self._concluded(ended, run)
                self.bars.done(outcome.name, failed=outcome.error is not None)
                if outcome.error is not None:
                    failed.append(outcome)
                report(told)
        return failed

    def _concluded(
        self, outcome: Outcome[Path | str], run: ImageRun | None
    ) -> tuple[dict[str, Any], Outcome[Path | str]]:
        """Return the report of an image, its record and pictures written; an image whose files cannot be written has
        failed.
        """
        try:
            return self._told(outcome, run), outcome
        except (ExactileError, OSError) as error:
            failed = Outcome(name=outcome.name, error=error)
            return self._told(failed, run), failed

    def target(self, image: Path | str) -> Path:
        """Return the path of the result of ``image``."""
        return result_path(image, self.found, self.folder, self.suffix)

    def _prepare(self, image: Path | str, read: Callable[[], None]) -> ImageRun | None:
        target = self.target(image)
        source = self._sources[image] = self.request.open_source(image)
        sink = self.request.open_sink(target)
        run = self.request.image_run(source, sink, self.bars.watcher(image, read), image, target)
        self._runs[image] = run
        if target.exists() and not self.overwrite:
            check_complete(target, run.asked(), resume=self.request.resume)
            return None
        write_record(pending_path(target), {"run": run.asked(), "versions": versions()})
        return run

    def _told(self, outcome: Outcome[Path | str], run: ImageRun | None) -> dict[str, Any]:
        target = self.target(outcome.name)
        if outcome.error is not None:
            if not is_something_left(target):
                pending_path(target).unlink(missing_ok=True)
            return {"image": str(outcome.name), "output": str(target), "error": str(outcome.error)}
        if outcome.summary is None:
            return {"image": str(outcome.name), "output": str(target), "complete": True}
        warn_of_damage(outcome.summary.damage, outcome.name)
        if run is not None:
            warn_of_nan(outcome.summary.nan, run.model.contract.result, outcome.name)
        told = summary_object(outcome.summary, model=self.request.model.path, image=outcome.name, target=target)
        record = {"run": run.record if run is not None else {}, "versions": versions(), "summary": told}
        write_record(record_path(target), record)
        pending_path(target).unlink(missing_ok=True)
        return told


def stem(image: Path | str) -> str:
    """Return an image's name without folder and suffixes."""
    name = os.fspath(image).rstrip("/").rpartition("/")[2]
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    if Path(name).suffix[1:].isdigit() and Path(image).is_dir():  # a folder named by its UID
        return name
    return Path(name).stem


def result_path(image: Path | str, found: FoundImages, folder: Path, suffix: str) -> Path:
    """Return the path of the result of ``image``, one of those found."""
    return folder / found.subfolders.get(image, Path()) / f"{stem(image)}{suffix}"


def prepare_folder(images: Sequence[str], folder: Path, suffix: str, *, recursive: bool) -> FoundImages:
    """Return the images, and a folder for their results. Skipped files are reported on stderr.

    Raises OptionError if two results would have the same name.
    """
    if suffix not in FORMATS:
        raise OptionError(f"--format {suffix}: results are written as {', '.join(FORMATS)}")
    found = find_images(images, recursive=recursive)
    names: dict[Path, Path | str] = {}
    for image in found.images:
        target = result_path(image, found, folder, suffix)
        other = names.setdefault(target, image)
        if other is not image:
            raise OptionError(
                f"{other} and {image} would both become {target}. What to do: run them into different folders"
            )
    with os_errors_as_sink_errors(folder):
        for target in {path.parent for path in names} | {folder}:
            target.mkdir(parents=True, exist_ok=True)
    if found.passed_over:
        typer.echo(f"note: passed over: {describe_passed_over(found.passed_over)}", err=True)
    return found


def tell_failures(failed: Sequence[Outcome[Path | str]], total: int) -> None:
    """Report failures on stderr, one line an image; exit with the status of the first."""
    if not failed:
        return
    typer.echo(f"error: {len(failed)} of {total} images failed:", err=True)
    for outcome in failed:
        typer.echo(f"  {outcome.name}: {outcome.error}", err=True)
    first = failed[0].error
    raise typer.Exit(first.exit_status if isinstance(first, ExactileError) else INTERNAL_ERROR)
